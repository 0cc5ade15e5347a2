// The pointwise operators of either device: from tensors to the frame's arguments and back.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "catalog_operators.h"
#include "functions.h"
#include "pointwise_call.h"
#include "pointwise_entries.h"
#include "tensors.h"

namespace fused_ml {

namespace {

// Gives the arguments the input's dimensions, merged where every operand allows: largest stride first, of the
// input, or where that is expanded of the last operand that is not.
class PointwiseShape {
 public:
  explicit PointwiseShape(const Tensor& input) : x(input) {}

  void add(Elements& to, const Tensor& tensor) { operands.push_back({&to, tensor}); }

  void fill(PointwiseArguments& a) const {
    std::vector<int64_t> order(x.dim());
    std::iota(order.begin(), order.end(), 0);
    const Tensor& sorted = order_giver();
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t p, int64_t q) { return sorted.stride(p) > sorted.stride(q); });
    a.numel = x.numel();
    a.dims = 1;
    a.sizes[0] = 1;
    int64_t last = -1;  // the dimension that the current merged one ends with
    for (int64_t d : order) {
      if (x.size(d) == 1) continue;
      const bool merges = last >= 0 && std::all_of(operands.begin(), operands.end(), [&](const Operand& o) {
                            return o.tensor.stride(last) == o.tensor.stride(d) * x.size(d);
                          });
      if (last >= 0 && !merges) ++a.dims;
      STD_TORCH_CHECK(a.dims <= kMaxDims, "fused_ml: more than ", kMaxDims,
                      " dimensions that do not merge; make the operands contiguous");
      a.sizes[a.dims - 1] = merges ? a.sizes[a.dims - 1] * x.size(d) : x.size(d);
      for (const Operand& o : operands) o.to->strides[a.dims - 1] = o.tensor.stride(d);
      last = d;
    }
    for (const Operand& o : operands) {
      o.to->data = o.tensor.const_data_ptr();
      o.to->type = dtype_of(o.tensor);
      if (last < 0) o.to->strides[0] = 1;
    }
  }

 private:
  struct Operand {
    Elements* to;
    Tensor tensor;
  };
  static bool is_expanded(const Tensor& t) {
    for (int64_t d = 0; d < t.dim(); ++d) {
      if (t.stride(d) == 0 && t.size(d) > 1) return true;
    }
    return false;
  }
  const Tensor& order_giver() const {
    if (!is_expanded(x)) return x;
    for (size_t i = operands.size(); i-- > 0;) {
      if (!is_expanded(operands[i].tensor)) return operands[i].tensor;
    }
    return x;
  }

  Tensor x;
  std::vector<Operand> operands;
};

void check_operand(const char* name, const std::optional<Tensor>& tensor, const Tensor& input) {
  if (!tensor) return;
  check_device(name, *tensor, input);
  const auto sizes = tensor->sizes(), expected = input.sizes();
  STD_TORCH_CHECK(sizes.size() == expected.size() && std::equal(sizes.begin(), sizes.end(), expected.begin()),
                  "expected ", name, " expanded to the input's shape");
  STD_TORCH_CHECK(
      (tensor->scalar_type() == ScalarType::Double) == (input.scalar_type() == ScalarType::Double),
      "expected ", name, " in the input's arithmetic: float64 with float64, else any other floating type");
}

// --- activations ---

Tensor activate(const PointwiseFormula& formula, const Tensor& input, const Tensor& out) {
  PointwiseCall call{formula};
  PointwiseShape shape(input);
  shape.add(call.arguments.x, input);
  shape.add(call.arguments.value, out);
  shape.fill(call.arguments);
  run_pointwise(input, call);
  return out;
}

Tensor activate_backward(const PointwiseFormula& formula, const Tensor& grad_output, const Tensor& saved) {
  check_operand("grad_output", grad_output, saved);
  const Tensor out = empty_like(saved, saved.scalar_type());
  PointwiseCall call{formula};
  PointwiseShape shape(saved);
  shape.add(call.arguments.x, saved);
  shape.add(call.arguments.g, grad_output);
  shape.add(call.arguments.dx, out);
  shape.fill(call.arguments);
  run_pointwise(saved, call);
  return out;
}

// --- losses ---

struct LossCall {
  Tensor input, target;
  std::optional<Tensor> weight, p, normalizer, grad_output;
  int64_t reduction;
  ScalarType loss_dtype;
  bool loss, grad_input, grad_target;
};

// -> of loss, input's gradient and target's gradient those asked for
std::vector<Tensor> run_loss(const PointwiseFormula& formula, const char* name, const LossCall& l) {
  check_operand("target", l.target, l.input);
  check_operand("weight", l.weight, l.input);
  check_operand("pos_weight", l.p, l.input);
  const bool summed = l.reduction != kNone;
  if (!summed) check_operand("grad_output", l.grad_output, l.input);
  STD_TORCH_CHECK(!summed || !l.grad_output || l.grad_output->numel() == 1, name,
                  ": expected one grad_output for a mean or sum");
  if (summed && l.grad_output) check_device("grad_output", *l.grad_output, l.input);
  if (l.normalizer) check_device("normalizer", *l.normalizer, l.input);
  PointwiseCall call{formula};
  PointwiseArguments& a = call.arguments;
  PointwiseShape shape(l.input);
  shape.add(a.x, l.input);
  shape.add(a.t, l.target);
  if (l.weight) shape.add(a.w, *l.weight);
  if (l.p) shape.add(a.p, *l.p);
  if (l.grad_output && !summed) shape.add(a.g, *l.grad_output);
  if (l.grad_output && summed) call.gradient = l.grad_output;

  std::vector<Tensor> outputs;
  if (l.loss && !summed) {
    outputs.push_back(empty_like(l.target, l.loss_dtype));  // torch's results lie as the target does
    shape.add(a.value, outputs.back());
  } else if (l.loss) {
    call.loss = fresh(l.input, nullptr, nullptr, 0, l.loss_dtype);
    outputs.push_back(*call.loss);
  }
  if (l.grad_input) {
    outputs.push_back(empty_like(l.input, l.input.scalar_type()));
    shape.add(a.dx, outputs.back());
  }
  if (l.grad_target) {
    outputs.push_back(empty_like(l.input, l.target.scalar_type()));
    shape.add(a.dt, outputs.back());
  }
  shape.fill(a);
  if (l.reduction == kMean) {
    call.denominator = static_cast<double>(l.input.numel());
    call.normalizer = l.normalizer;
  }
  run_pointwise(l.input, call);
  return outputs;
}

// --- the catalog's rows as operators: of each kind one function, which a formula's place and options make
// one of ---

template <size_t>
using Number = double;

template <int kCode, class Options = std::make_index_sequence<entry_at(kCode).options_count>>
struct ActivationOperator;
template <int kCode, size_t... kOption>
struct ActivationOperator<kCode, std::index_sequence<kOption...>> {
  static Tensor forward(const Tensor& input, Number<kOption>... options) {
    const auto make = entry_at(kCode).contiguous ? empty_contiguous : empty_like;
    return activate({kCode, {options...}}, input, make(input, input.scalar_type()));
  }
  static Tensor backward(const Tensor& grad_output, const Tensor& saved, Number<kOption>... options) {
    return activate_backward({kCode, {options...}}, grad_output, saved);
  }
};

template <int kCode, class Options = std::make_index_sequence<entry_at(kCode).options_count>>
struct LossOperator;
template <int kCode, size_t... kOption>
struct LossOperator<kCode, std::index_sequence<kOption...>> {
  static std::vector<Tensor> run(const Tensor& input, const Tensor& target,
                                 const std::optional<Tensor>& weight, const std::optional<Tensor>& normalizer,
                                 const std::optional<Tensor>& grad_output, int64_t reduction,
                                 ScalarType loss_dtype, bool loss, bool grad_input, bool grad_target,
                                 Number<kOption>... options) {
    return run_loss({kCode, {options...}}, entry_at(kCode).name,
                    {input, target, weight, std::nullopt, normalizer, grad_output, reduction, loss_dtype,
                     loss, grad_input, grad_target});
  }
};

std::string options_in_schema(int code) {
  std::string text;
  for (int i = 0; i < entry_at(code).options_count; ++i)
    text += std::string(", float ") + entry_at(code).options[i];
  return text;
}

template <int kCode>
void add_activation(std::vector<CatalogOperator>& to) {
  using Operator = ActivationOperator<kCode>;
  const std::string name = entry_at(kCode).name, options = options_in_schema(kCode);
  to.push_back({name, "(Tensor input" + options + ") -> Tensor", TORCH_BOX(&Operator::forward)});
  to.push_back({name + "_backward", "(Tensor grad_output, Tensor saved" + options + ") -> Tensor",
                TORCH_BOX(&Operator::backward)});
}
template <int kCode>
void add_loss(std::vector<CatalogOperator>& to) {
  to.push_back({entry_at(kCode).name,
                "(Tensor input, Tensor target, Tensor? weight, Tensor? normalizer, Tensor? grad_output, int "
                "reduction, "
                "ScalarType loss_dtype, bool loss, bool grad_input, bool grad_target" +
                    options_in_schema(kCode) + ") -> Tensor[]",
                TORCH_BOX(&LossOperator<kCode>::run)});
}

template <int... kActivation, int... kLoss>
std::vector<CatalogOperator> all_operators(std::integer_sequence<int, kActivation...>,
                                           std::integer_sequence<int, kLoss...>) {
  std::vector<CatalogOperator> operators;
  (add_activation<kActivation>(operators), ...);
  (add_loss<kActivations + kLoss>(operators), ...);
  return operators;
}

}  // namespace

std::vector<CatalogOperator> pointwise_operators() {
  return all_operators(std::make_integer_sequence<int, kActivations>(),
                       std::make_integer_sequence<int, kLosses>());
}

std::vector<Tensor> binary_cross_entropy_with_logits(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& pos_weight, const std::optional<Tensor>& normalizer,
    const std::optional<Tensor>& grad_output, int64_t reduction, ScalarType loss_dtype, bool loss,
    bool grad_input, bool grad_target, double focal_gamma, double focal_alpha, double label_smoothing,
    double ignore_index) {
  const bool plain = focal_gamma == 0 && focal_alpha < 0 && label_smoothing == 0 && std::isnan(ignore_index);
  constexpr int kPlain = code_of("binary_cross_entropy"), kFocal = code_of("focal_binary_cross_entropy");
  return run_loss({plain ? kPlain : kFocal, {focal_gamma, focal_alpha, label_smoothing, ignore_index}},
                  "binary_cross_entropy_with_logits",
                  {input, target, weight, pos_weight, normalizer, grad_output, reduction, loss_dtype, loss,
                   grad_input, grad_target});
}

}  // namespace fused_ml
