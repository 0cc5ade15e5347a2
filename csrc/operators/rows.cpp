// The rowwise operators of either device: from tensors to the frame's arguments and back.
#include "functions.h"
#include "rows_call.h"
#include "rows_geometry.h"

namespace fused_ml {

namespace {

ScalarType arithmetic_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// `tensor` contiguous and of the arithmetic type, or nothing.
std::optional<Tensor> as_arithmetic(const std::optional<Tensor>& tensor, ScalarType type) {
  if (!tensor) return std::nullopt;
  return as_contiguous(tensor->scalar_type() == type ? *tensor : torch::stable::to(*tensor, type));
}

struct CrossEntropyCall {
  const Tensor& input;
  const Tensor& target;
  const std::optional<Tensor>& weight;
  const std::optional<Tensor>& sample_weight;
  const std::optional<Tensor>& normalizer;
  const std::optional<Tensor>& grad_output;
  int64_t reduction, ignore_index;
  RowwiseOptions options;
  ScalarType loss_dtype;
  bool grad_input, grad_target, stats, in_place;
};

struct CrossEntropyOutputs {
  std::optional<Tensor> loss, grad_input, grad_target, lse, predicted;

  // Those that were asked for, in order.
  std::vector<Tensor> list() && {
    std::vector<Tensor> found;
    for (std::optional<Tensor>* output : {&loss, &grad_input, &grad_target, &lse, &predicted}) {
      if (*output) found.push_back(std::move(**output));
    }
    return found;
  }
};

// Whether `rows` has the shape of `x` without dimension `dim`.
bool has_shape_of_rows(const Tensor& rows, const Tensor& x, int64_t dim) {
  if (rows.dim() != x.dim() - 1) return false;
  for (int64_t d = 0; d < rows.dim(); ++d) {
    if (rows.size(d) != x.size(d < dim ? d : d + 1)) return false;
  }
  return true;
}

void check_cross_entropy(const CrossEntropyCall& call, bool distribution, int64_t rows, int64_t classes) {
  check_device("target", call.target, call.input);
  if (call.weight) check_device("weight", *call.weight, call.input);
  if (call.sample_weight) check_device("sample_weight", *call.sample_weight, call.input);
  if (call.normalizer) check_device("normalizer", *call.normalizer, call.input);
  STD_TORCH_CHECK(rows > 0, "cross_entropy: expected an input of at least one row and class");
  STD_TORCH_CHECK(distribution ? call.target.numel() == rows * classes
                               : has_shape_of_rows(call.target, call.input, call.input.dim() > 1 ? 1 : 0),
                  "cross_entropy: expected a target for each of ", rows, " rows (or a distribution over ",
                  classes, " classes for each), got ", call.target.numel(), " elements");
  STD_TORCH_CHECK(!call.weight || call.weight->numel() == classes,
                  "cross_entropy: expected a weight for each of ", classes, " classes");
  STD_TORCH_CHECK(!call.sample_weight || call.sample_weight->numel() == rows,
                  "cross_entropy: expected a sample_weight for each of ", rows, " rows");
  const int64_t losses = call.reduction == kNone ? rows : 1;
  STD_TORCH_CHECK(!call.grad_output || call.grad_output->numel() == losses,
                  "cross_entropy: expected a grad_output for each of ", losses, " losses, got ",
                  call.grad_output->numel());
}

CrossEntropyOutputs run_cross_entropy(const CrossEntropyCall& call) {
  const Tensor& x = call.input;
  const ScalarType arithmetic = arithmetic_type(x);
  const int64_t dim = x.dim() > 1 ? 1 : 0;
  const int64_t classes = x.size(dim);
  const int64_t rows = classes ? x.numel() / classes : 0;
  const bool distribution = is_floating(call.target.scalar_type());
  check_cross_entropy(call, distribution, rows, classes);

  CrossEntropyOutputs outputs;
  RowwiseTensors streams{dim, x, distribution ? std::optional<Tensor>(call.target) : std::nullopt};
  if (call.in_place) {
    streams.out_over_x();
  } else {
    streams.line_up_inputs(true);
  }
  if (call.grad_input && !call.in_place) {
    outputs.grad_input = streams.new_out(x.scalar_type());
  }
  if (call.grad_target) outputs.grad_target = streams.new_out2(x.scalar_type());
  const bool side = distribution || call.options.label_smoothing != 0 || call.options.softcap != 0;
  const RowwiseOp op = distribution ? RowwiseOp::cross_entropy_distribution
                       : side       ? RowwiseOp::cross_entropy_class
                                    : RowwiseOp::cross_entropy_plain;
  RowwiseCall run{"cross_entropy", op, call.options, streams.arguments()};
  RowwiseArguments& a = run.arguments;
  std::optional<Tensor> weight = as_arithmetic(call.weight, arithmetic);
  if (side && !weight) {
    weight = new_vector(x, classes, arithmetic);
    torch::stable::fill_(*weight, 1.0);
  }
  const std::optional<Tensor> row_weight = as_arithmetic(call.sample_weight, arithmetic);
  const std::optional<Tensor> row_gradient =
      call.reduction == kNone ? as_arithmetic(call.grad_output, arithmetic) : std::nullopt;
  const Tensor target = distribution ? call.target : as_contiguous(call.target);
  if (!distribution) {
    a.target = target.const_data_ptr();
    a.target_bytes = element_bytes(target.scalar_type());
  }
  a.ignore_index = call.ignore_index;
  a.exact_sums = call.loss_dtype == arithmetic || call.stats;
  if (weight) a.class_weight = weight->const_data_ptr();
  if (row_weight) a.row_weight = row_weight->const_data_ptr();
  if (row_gradient) a.row_gradient = row_gradient->const_data_ptr();
  run.mean = call.reduction == kMean;
  run.count_class_weights = call.weight && !distribution;
  run.normalizer = call.normalizer;
  if (call.reduction != kNone) run.gradient = call.grad_output;

  if (call.reduction == kNone) {
    outputs.loss = new_vector(x, rows, arithmetic);
    a.loss = outputs.loss->mutable_data_ptr();
  } else {
    outputs.loss = run.loss = fresh(x, nullptr, nullptr, 0, call.loss_dtype);
  }
  if (call.stats) {
    outputs.lse = new_vector(x, rows, arithmetic);
    outputs.predicted = new_vector(x, rows, ScalarType::Long);
    a.lse = outputs.lse->mutable_data_ptr();
    a.predicted = outputs.predicted->mutable_data_ptr<int64_t>();
  }
  run_rowwise(x, run);
  if (call.reduction == kNone && call.loss_dtype != arithmetic) {
    outputs.loss = torch::stable::to(*outputs.loss, call.loss_dtype);
  }
  return outputs;
}

// softmax and log_softmax, forward (one input) and backward (two).
Tensor run_softmax(RowwiseOp op, bool negate, const Tensor& x, const std::optional<Tensor>& y, int64_t dim,
                   ScalarType dtype) {
  RowwiseTensors streams{dim, x, y};
  if (x.numel()) streams.line_up_inputs(!y);
  Tensor out = streams.new_contiguous_out(dtype);
  if (x.numel() == 0) return out;
  streams.line_up_with_out();
  RowwiseCall run{"softmax", op, {}, streams.arguments()};
  run.options.sign = negate ? -1 : 1;
  run.arguments.exact_sums = y || dtype == arithmetic_type(x);  // gradients may cancel in their sum
  run_rowwise(x, run);
  return out;
}

}  // namespace

std::vector<Tensor> cross_entropy(const Tensor& input, const Tensor& target, int64_t reduction,
                                  int64_t ignore_index, bool grad_input, bool stats,
                                  std::optional<ScalarType> loss_dtype, const std::optional<Tensor>& weight,
                                  double label_smoothing, double z_loss, double softcap,
                                  const std::optional<Tensor>& sample_weight,
                                  const std::optional<Tensor>& normalizer, bool grad_target,
                                  const std::optional<Tensor>& grad_output) {
  return run_cross_entropy({input,
                            target,
                            weight,
                            sample_weight,
                            normalizer,
                            grad_output,
                            reduction,
                            ignore_index,
                            {label_smoothing, z_loss, softcap},
                            loss_dtype.value_or(input.scalar_type()),
                            grad_input,
                            grad_target,
                            stats,
                            false})
      .list();
}

std::tuple<Tensor, Tensor, Tensor> cross_entropy_(
    const Tensor& input, const Tensor& target, int64_t reduction, int64_t ignore_index, bool stats,
    std::optional<ScalarType> loss_dtype, const std::optional<Tensor>& weight, double label_smoothing,
    double z_loss, double softcap, const std::optional<Tensor>& sample_weight,
    const std::optional<Tensor>& normalizer, const std::optional<Tensor>& grad_output) {
  STD_TORCH_CHECK(
      reduction != kNone && !is_floating(target.scalar_type()),
      "cross_entropy_: the gradient can be written over the input for class targets and reduction 'mean' "
      "or 'sum' only");
  CrossEntropyOutputs o = run_cross_entropy({input,
                                             target,
                                             weight,
                                             sample_weight,
                                             normalizer,
                                             grad_output,
                                             reduction,
                                             ignore_index,
                                             {label_smoothing, z_loss, softcap},
                                             loss_dtype.value_or(input.scalar_type()),
                                             true,
                                             false,
                                             stats,
                                             true});
  return {*o.loss, o.lse.value_or(nothing(input)), o.predicted.value_or(nothing(input))};
}

Tensor softmax(const Tensor& input, int64_t dim, bool negate, ScalarType dtype) {
  return run_softmax(RowwiseOp::softmax, negate, input, std::nullopt, dim, dtype);
}

Tensor softmax_backward(const Tensor& grad_output, const Tensor& output, int64_t dim, bool negate,
                        ScalarType input_dtype) {
  return run_softmax(RowwiseOp::softmax_backward, negate, grad_output, output, dim, input_dtype);
}

Tensor log_softmax(const Tensor& input, int64_t dim, ScalarType dtype) {
  return run_softmax(RowwiseOp::log_softmax, false, input, std::nullopt, dim, dtype);
}

Tensor log_softmax_backward(const Tensor& grad_output, const Tensor& output, int64_t dim,
                            ScalarType input_dtype) {
  return run_softmax(RowwiseOp::log_softmax_backward, false, grad_output, output, dim, input_dtype);
}

// --- nll_loss: the own class's element, no softmax ---

namespace {

// The arguments but for the output; `targets` and `weights` as the kernels read them.
RowwiseCall own_class_call(RowwiseOp op, RowwiseTensors& streams, const Tensor& targets,
                           const std::optional<Tensor>& weights, int64_t ignore_index) {
  RowwiseCall call{"nll_loss", op, {}, streams.arguments()};
  RowwiseArguments& a = call.arguments;
  STD_TORCH_CHECK(targets.numel() == a.rows, "nll_loss: expected a target for each of ", a.rows,
                  " rows, got ", targets.numel());
  STD_TORCH_CHECK(!weights || weights->numel() == a.classes, "nll_loss: expected a weight for each of ",
                  a.classes, " classes, got ", weights->numel());
  a.target = targets.const_data_ptr();
  a.target_bytes = element_bytes(targets.scalar_type());
  a.ignore_index = ignore_index;
  if (weights) a.class_weight = weights->const_data_ptr();
  return call;
}

}  // namespace

std::tuple<Tensor, Tensor> nll_loss(const Tensor& input, const Tensor& target,
                                    const std::optional<Tensor>& weight, int64_t reduction,
                                    int64_t ignore_index) {
  const ScalarType arithmetic = arithmetic_type(input);
  const Tensor targets = as_contiguous(target);
  const std::optional<Tensor> weights = as_arithmetic(weight, arithmetic);
  RowwiseTensors streams{input.dim() > 1 ? 1 : 0, input, std::nullopt};
  RowwiseCall call = own_class_call(RowwiseOp::own_class, streams, targets, weights, ignore_index);
  if (reduction == kNone) {
    const Tensor losses = new_vector(input, call.arguments.rows, arithmetic);
    call.arguments.loss = losses.mutable_data_ptr();
    run_rowwise(input, call);
    const bool same = arithmetic == input.scalar_type();
    return {same ? losses : torch::stable::to(losses, input.scalar_type()), nothing(input)};
  }
  call.mean = reduction == kMean;
  call.loss = fresh(input, nullptr, nullptr, 0, input.scalar_type());
  call.denominator = fresh(input, nullptr, nullptr, 0, ScalarType::Double);
  run_rowwise(input, call);
  return {*call.loss, *call.denominator};
}

// grad_output [rows], or one number that is divided by total_weight.
Tensor nll_loss_backward(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                         const std::optional<Tensor>& weight, int64_t ignore_index,
                         const std::optional<Tensor>& total_weight) {
  const ScalarType arithmetic = arithmetic_type(input);
  const Tensor targets = as_contiguous(target);
  const std::optional<Tensor> weights = as_arithmetic(weight, arithmetic);
  const std::optional<Tensor> by_row = total_weight ? std::nullopt : as_arithmetic(grad_output, arithmetic);
  RowwiseTensors streams{input.dim() > 1 ? 1 : 0, input, std::nullopt};
  Tensor out = streams.new_out(input.scalar_type());
  if (!kOwnClassBackwardZeroes) torch::stable::zero_(out);
  RowwiseCall call = own_class_call(RowwiseOp::own_class_backward, streams, targets, weights, ignore_index);
  if (by_row) {
    call.arguments.row_gradient = by_row->const_data_ptr();
  } else {
    call.mean = true;
    call.normalizer = total_weight;
    call.gradient = grad_output;
  }
  run_rowwise(input, call);
  return out;
}

}  // namespace fused_ml
