// The rowwise operators' CUDA side: nothing waits for the device.
#include "operators/rows_call.h"

#include "on_device.h"

namespace fused_ml {

namespace {

using cuda::OnDeviceOf;
using cuda::RowwiseTask;

// The sum of the weights of the rows that count, left in `out` [].
void sum_weights(const RowwiseCall& call, const Tensor& input, const Tensor& out, cudaStream_t stream) {
  RowwiseTask task;
  task.a = call.arguments;
  task.t = cuda::choose_tiling(RowwiseOp::own_class, task.a);
  const int64_t count = cuda::tiles_of_rows(task.t, task.a);
  const Tensor partials = new_vector(input, count, ScalarType::Double);
  task.partials = partials.mutable_data_ptr<double>();
  cuda::launch_weights(task, call.count_class_weights, stream);
  cuda::launch_total({task.partials, count, 1.0, {}, out.mutable_data_ptr(), DType::float64}, stream);
}

// What the losses' sum and the gradients are divided by: a number here, or one on the device.
double set_denominator(RowwiseCall& call, const Tensor& input, RowwiseTask& task,
                       std::optional<Tensor>& holder, cudaStream_t stream) {
  if (!call.mean) {
    if (call.denominator) torch::stable::fill_(*call.denominator, 1.0);
    return 1;
  }
  if (call.normalizer) {
    task.denominator = cuda::device_number(*call.normalizer, holder);
    return 1;
  }
  const RowwiseArguments& a = call.arguments;
  if (!a.target && !a.row_weight) return static_cast<double>(a.rows);
  holder = call.denominator ? *call.denominator : fresh(input, nullptr, nullptr, 0, ScalarType::Double);
  sum_weights(call, input, *holder, stream);
  task.denominator = {holder->const_data_ptr(), cuda::NumberType::float64};
  return 1;
}

}  // namespace

const bool kOwnClassBackwardZeroes = false;

void run_rowwise(const Tensor& input, RowwiseCall& call) {
  const OnDeviceOf device(input);
  RowwiseTask task;
  std::optional<Tensor> denominator, numerator, partials, blocks;
  const double rows = set_denominator(call, input, task, denominator, device.stream());
  task.a = call.arguments;
  task.a.gradient_scale = rows == 0 ? 0 : 1 / rows;
  if (call.gradient) task.numerator = cuda::device_number(*call.gradient, numerator);
  task.t = cuda::choose_tiling(call.op, task.a);
  const int64_t tiles = cuda::tiles_of_rows(task.t, task.a);
  if (call.loss) {
    partials = new_vector(input, tiles, ScalarType::Double);
    task.partials = partials->mutable_data_ptr<double>();
  }
  if (const int64_t bytes = cuda::block_bytes(task.t, task.a)) {
    blocks = new_vector(input, (bytes + 7) / 8, ScalarType::Double);
    task.blocks = blocks->mutable_data_ptr();
  }
  cuda::launch_rowwise(call.op, call.options, task, device.stream());
  if (!call.loss) return;
  cuda::launch_total(
      {task.partials, tiles, rows, task.denominator, call.loss->mutable_data_ptr(), dtype_of(*call.loss)},
      device.stream());
}

}  // namespace fused_ml
