// The pointwise operators of either device: from tensors to the frame's arguments and back.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops.h"
#include "pointwise_device.h"
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

}  // namespace

std::vector<Tensor> binary_cross_entropy_with_logits(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& pos_weight, const std::optional<Tensor>& normalizer,
    const std::optional<Tensor>& grad_output, int64_t reduction, double focal_gamma, double focal_alpha,
    double label_smoothing, double ignore_index, ScalarType loss_dtype, bool loss, bool grad_input,
    bool grad_target) {
  check_operand("target", target, input);
  check_operand("weight", weight, input);
  check_operand("pos_weight", pos_weight, input);
  const bool summed = reduction != kNone;
  if (!summed) check_operand("grad_output", grad_output, input);
  STD_TORCH_CHECK(!summed || !grad_output || grad_output->numel() == 1,
                  "binary_cross_entropy_with_logits: expected one grad_output for a mean or sum");
  if (summed && grad_output) check_device("grad_output", *grad_output, input);
  if (normalizer) check_device("normalizer", *normalizer, input);
  const bool plain = focal_gamma == 0 && focal_alpha < 0 && label_smoothing == 0 && std::isnan(ignore_index);
  PointwiseCall call{plain ? PointwiseOp::binary_cross_entropy : PointwiseOp::focal_binary_cross_entropy,
                     {focal_gamma, focal_alpha, label_smoothing, ignore_index}};
  PointwiseArguments& a = call.arguments;
  PointwiseShape shape(input);
  shape.add(a.x, input);
  shape.add(a.t, target);
  if (weight) shape.add(a.w, *weight);
  if (pos_weight) shape.add(a.p, *pos_weight);
  if (grad_output && !summed) shape.add(a.g, *grad_output);
  if (grad_output && summed) call.gradient = grad_output;

  std::vector<Tensor> outputs;
  if (loss && reduction == kNone) {
    outputs.push_back(empty_like(target, loss_dtype));  // torch starts from 1 - target
    shape.add(a.value, outputs.back());
  } else if (loss) {
    call.loss = fresh(input, nullptr, nullptr, 0, loss_dtype);
    outputs.push_back(*call.loss);
  }
  if (grad_input) {
    outputs.push_back(empty_like(input, input.scalar_type()));
    shape.add(a.dx, outputs.back());
  }
  if (grad_target) {
    outputs.push_back(empty_like(input, target.scalar_type()));
    shape.add(a.dt, outputs.back());
  }
  shape.fill(a);
  if (reduction == kMean) {
    call.denominator = static_cast<double>(input.numel());
    call.normalizer = normalizer;
  }
  run_pointwise(input, call);
  return outputs;
}

Tensor logsigmoid(const Tensor& input, ScalarType dtype) {
  PointwiseCall call{PointwiseOp::logsigmoid, {}};
  PointwiseArguments& a = call.arguments;
  PointwiseShape shape(input);
  Tensor out = empty_contiguous(input, dtype);
  shape.add(a.x, input);
  shape.add(a.value, out);
  shape.fill(a);
  run_pointwise(input, call);
  return out;
}

Tensor logsigmoid_backward(const Tensor& grad_output, const Tensor& input) {
  check_operand("grad_output", grad_output, input);
  PointwiseCall call{PointwiseOp::logsigmoid, {}};
  PointwiseArguments& a = call.arguments;
  PointwiseShape shape(input);
  Tensor out = empty_like(input, input.scalar_type());
  shape.add(a.x, input);
  shape.add(a.g, grad_output);
  shape.add(a.dx, out);
  shape.fill(a);
  run_pointwise(input, call);
  return out;
}

}  // namespace fused_ml
