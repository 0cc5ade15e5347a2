// The shipped kernels on NumPy arrays. Results go into the caller's arrays, so that a benchmark times the
// kernel and not the first touch of fresh memory.
#include <algorithm>
#include <cmath>

#include "operators/optimizer_entries.h"
#include "operators/pointwise_entries.h"
#include "module.h"

namespace fused_ml::raw {

namespace {

using OptionalArray = std::optional<py::array>;

// bfloat16, which NumPy lacks, is passed as uint16.
DType dtype_of(const py::array& array) {
  if (array.dtype().is(py::dtype::of<float>())) return DType::float32;
  if (array.dtype().is(py::dtype::of<double>())) return DType::float64;
  if (array.dtype().is(py::dtype::of<uint16_t>())) return DType::bfloat16;
  if (array.dtype().is(py::dtype("float16"))) return DType::float16;
  throw py::type_error("expected float32, float64, float16 or, for bfloat16, uint16; got " +
                       std::string(py::str(array.dtype())));
}

DType arithmetic(DType type) { return type == DType::float64 ? DType::float64 : DType::float32; }

void check(bool condition, const std::string& expected) {
  if (!condition) throw py::value_error("expected " + expected);
}

bool same_shape(const py::array& a, const py::array& b) {
  return a.ndim() == b.ndim() && std::equal(a.shape(), a.shape() + a.ndim(), b.shape());
}

void check_like(const py::array& array, const py::array& model, const char* name) {
  check(same_shape(array, model) && array.flags() & py::array::c_style,
        std::string(name) + " contiguous and of the input's shape");
}

Stream rows_of(const py::array& array) { return {array.data(), array.shape(1), 1, array.shape(1)}; }

RowwiseArguments arguments_of(const py::array& x) {
  check(x.ndim() == 2 && x.flags() & py::array::c_style, "a contiguous input [rows, classes]");
  RowwiseArguments a{};
  a.rows = x.shape(0);
  a.classes = x.shape(1);
  a.inner = a.rows;
  a.type = a.out_type = dtype_of(x);
  a.x = rows_of(x);
  return a;
}

void set_out(RowwiseArguments& a, const py::array& x, py::array& out) {
  check_like(out, x, "an output");
  a.out_type = dtype_of(out);
  a.out = rows_of(out);
  a.out.data = out.mutable_data();
}

void run(const Kernels& kernels, RowwiseOp op, const RowwiseArguments& a) {
  py::gil_scoped_release release;
  kernels.rowwise(op, {}, a);
}

// logits, gradient: [rows, classes]; target, loss: [rows]
// exact: as the operator whose loss is of the arithmetic type, not of the logits'
void cross_entropy(const py::array& logits, const Array<int64_t>& target, OptionalArray loss,
                   OptionalArray gradient, bool exact, const std::string& isa) {
  const Kernels& kernels = kernels_at(isa);
  RowwiseArguments a = arguments_of(logits);
  check(target.ndim() == 1 && target.size() == a.rows, "a target for each row");
  int64_t bad_row = 0;
  double sum = 0;
  a.target = target.data();
  a.target_bytes = sizeof(int64_t);
  a.ignore_index = -100;
  a.bad_row = &bad_row;
  a.exact_sums = exact || arithmetic(a.type) == a.type;
  if (loss) {
    check(loss->ndim() == 1 && loss->size() == a.rows && dtype_of(*loss) == arithmetic(a.type),
          "a loss for each row, of the arithmetic type");
    a.loss = loss->mutable_data();
  } else {
    a.loss_sum = &sum;
  }
  if (gradient) set_out(a, logits, *gradient);
  run(kernels, RowwiseOp::cross_entropy_plain, a);
  if (bad_row) throw py::index_error("the target of row " + std::to_string(bad_row - 1) + " is no class");
}

void activate(RowwiseOp op, const py::array& x, py::array& out, const std::string& isa) {
  RowwiseArguments a = arguments_of(x);
  set_out(a, x, out);
  a.exact_sums = a.out_type == arithmetic(a.type);
  run(kernels_at(isa), op, a);
}

// grad, output, out: [rows, classes]
void activate_backward(RowwiseOp op, const py::array& grad, const py::array& output, py::array& out,
                       const std::string& isa) {
  RowwiseArguments a = arguments_of(grad);
  check_like(output, grad, "the activation's output");
  check(dtype_of(output) == a.type, "gradient and output of one type");
  a.y = rows_of(output);
  set_out(a, grad, out);
  run(kernels_at(isa), op, a);
}

// An array as an operand of a pointwise kernel, its elements in a row.
Elements elements_of(const py::array& array, const py::array& model, const char* name) {
  check_like(array, model, name);
  Elements e;
  e.data = array.data();
  e.type = dtype_of(array);
  e.strides[0] = 1;
  return e;
}

// value: what is written; nullopt: its sum alone, which is returned.
double pointwise(int code, const std::vector<double>& options, const py::array& x, OptionalArray target,
                 OptionalArray grad, OptionalArray value, OptionalArray dx, const std::string& isa) {
  const Kernels& kernels = kernels_at(isa);
  const PointwiseEntry& entry = entry_at(code);
  check(static_cast<int>(options.size()) == entry.options_count,
        std::to_string(entry.options_count) + " options of " + entry.name);
  PointwiseFormula formula{code};
  std::copy(options.begin(), options.end(), formula.options);
  double sum = 0;
  PointwiseArguments a;
  a.numel = a.sizes[0] = x.size();
  a.x = elements_of(x, x, "an input");
  if (target) a.t = elements_of(*target, x, "a target");
  if (grad) a.g = elements_of(*grad, x, "a gradient");
  if (value) a.value = elements_of(*value, x, "a value");
  if (dx) a.dx = elements_of(*dx, x, "a derivative");
  if (!value && !grad) a.sum = &sum;
  py::gil_scoped_release release;
  kernels.pointwise(formula, a);
  return sum;
}

void define_elementwise_activation(py::module_& m, int code) {
  m.def(
      entry_at(code).name,
      [code](const py::array& x, OptionalArray value, OptionalArray grad, OptionalArray dx,
             const std::vector<double>& options,
             const std::string& isa) { return pointwise(code, options, x, {}, grad, value, dx, isa); },
      "The values, or with `grad` and `dx` grad times their derivatives.", py::arg("x"),
      py::arg("value") = py::none(), py::arg("grad") = py::none(), py::arg("dx") = py::none(), py::kw_only(),
      py::arg("options") = std::vector<double>{}, py::arg("isa"));
}

void define_elementwise_loss(py::module_& m, int code) {
  m.def(
      entry_at(code).name,
      [code](const py::array& x, const py::array& target, OptionalArray value, OptionalArray dx,
             const std::vector<double>& options,
             const std::string& isa) { return pointwise(code, options, x, target, {}, value, dx, isa); },
      "The losses' sum, or with `value` each, and with `dx` their derivatives.", py::arg("x"),
      py::arg("target"), py::arg("value") = py::none(), py::arg("dx") = py::none(), py::kw_only(),
      py::arg("options") = std::vector<double>{}, py::arg("isa"));
}

template <RowwiseOp op>
void define_activation(py::module_& m, const char* name) {
  m.def(
      name, [](const py::array& x, py::array out, const std::string& isa) { activate(op, x, out, isa); },
      "Along the classes.", py::arg("x"), py::arg("out"), py::kw_only(), py::arg("isa"));
}

template <RowwiseOp op>
void define_activation_backward(py::module_& m, const char* name) {
  m.def(
      name,
      [](const py::array& grad, const py::array& output, py::array out, const std::string& isa) {
        activate_backward(op, grad, output, out, isa);
      },
      "Along the classes.", py::arg("grad"), py::arg("output"), py::arg("out"), py::kw_only(),
      py::arg("isa"));
}

size_t bytes_of(DType type) { return type == DType::float64 ? 8 : type == DType::float32 ? 4 : 2; }

// One tensor's step, the t-th, in place, of the family whose struct of options is Options.
template <class Options>
void optimizer_step(py::array param, py::array grad, std::vector<py::array> states, unsigned states_of,
                    const std::vector<double>& options, double t, const std::string& isa, int family) {
  const int code = update_of(family, states_of);
  check(code >= 0 && __builtin_popcount(states_of) == static_cast<int>(states.size()),
        "the states of an update of csrc/catalog/optimizers.h");
  check(options.size() == static_cast<size_t>(kNumbers<Options>), "the options of the family's struct");
  std::vector<py::array> operands{param, grad};
  operands.insert(operands.end(), states.begin(), states.end());
  MultiTensorEntry entry{};
  for (size_t k = 0; k < operands.size(); ++k) {
    check_like(operands[k], operands[0], "an operand");
    check(dtype_of(operands[k]) == dtype_of(operands[k < 2 ? 0 : 2]),
          "operands of one type, and states of one");
    entry.operands[k] = operands[k].mutable_data();
  }
  entry.numel = operands[0].size();
  Options o;
  memcpy(&o, options.data(), sizeof(o));
  const auto constants = formulas::constants_of(o, {t, false}, 1);
  memcpy(entry.constants, &constants, sizeof(constants));
  const DType type = dtype_of(operands[0]);
  const int64_t first_granule[] = {0, (entry.numel + kMultiTensorGranule - 1) / kMultiTensorGranule};
  const DType state_type = operands.size() > 2 ? dtype_of(operands[2]) : type;
  check(state_type == type || (bytes_of(type) == 2 && state_type == DType::float32),
        "states of the parameter's type, or of float32 beside a 16-bit one");
  py::gil_scoped_release release;
  kernels_at(isa).multi_tensor_update(code, {&entry, first_granule, 1, type, state_type, nullptr});
}

template <class Options>
void define_optimizer(py::module_& m, int family) {
  m.def(
      Options::kName,
      [family](py::array param, py::array grad, std::vector<py::array> states, unsigned states_of,
               const std::vector<double>& options, double t, const std::string& isa) {
        optimizer_step<Options>(param, grad, states, states_of, options, t, isa, family);
      },
      "Step t, in place; options in the order of the family's struct; states_of: which states, by bit.",
      py::arg("param"), py::arg("grad"), py::arg("states"), py::arg("states_of"), py::arg("options"),
      py::arg("t") = 1.0, py::kw_only(), py::arg("isa"));
}

template <class... F>
void define_optimizers(py::module_& m, formulas::List<F...>) {
  int family = 0;
  (define_optimizer<typename F::Options>(m, family++), ...);
}

}  // namespace

void define_kernels(py::module_& m) {
  m.def("cross_entropy", cross_entropy, "Plain cross entropy by row, and the gradient of its sum.",
        py::arg("logits"), py::arg("target"), py::arg("loss") = py::none(), py::arg("gradient") = py::none(),
        py::kw_only(), py::arg("exact") = false, py::arg("isa"));
  define_activation<RowwiseOp::softmax>(m, "softmax");
  define_activation<RowwiseOp::log_softmax>(m, "log_softmax");
  define_activation_backward<RowwiseOp::softmax_backward>(m, "softmax_backward");
  define_activation_backward<RowwiseOp::log_softmax_backward>(m, "log_softmax_backward");
  for (int code = 0; code < static_cast<int>(kPointwiseEntries.size()); ++code) {
    code < kActivations ? define_elementwise_activation(m, code) : define_elementwise_loss(m, code);
  }
  define_optimizers(m, formulas::Families<double>{});
}

}  // namespace fused_ml::raw
