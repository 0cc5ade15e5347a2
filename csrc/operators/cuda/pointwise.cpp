// The pointwise operators' CUDA side.
#include "operators/pointwise_call.h"
#include "operators/pointwise_entries.h"

#include "operators/functions.h"

#include <algorithm>
#include <utility>

#include "on_device.h"

namespace fused_ml {

namespace {

bool is_dense(const Tensor& tensor) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) != 1) dims.emplace_back(tensor.stride(d), tensor.size(d));
  }
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

}  // namespace

void run_pointwise(const Tensor& input, PointwiseCall& call) {
  const cuda::OnDeviceOf device(input);
  cuda::PointwiseTask task;
  task.a = call.arguments;
  task.a.gradient_scale = call.normalizer ? 1 : call.denominator == 0 ? 0 : 1 / call.denominator;
  std::optional<Tensor> normalizer, gradient, partials;
  if (call.normalizer) task.denominator = cuda::device_number(*call.normalizer, normalizer);
  if (call.gradient) task.numerator = cuda::device_number(*call.gradient, gradient);
  if (call.loss) {
    partials = new_vector(input, cuda::most_blocks(), ScalarType::Double);
    task.partials = partials->mutable_data_ptr<double>();
  }
  const int code = call.formula.code;
  const int64_t count =
      code < kActivations
          ? cuda::launch_activation(code, call.formula.options, task, device.stream())
          : cuda::launch_loss(code - kActivations, call.formula.options, task, device.stream());
  if (!call.loss) return;
  cuda::launch_total({task.partials, count, call.denominator, task.denominator, call.loss->mutable_data_ptr(),
                      dtype_of(*call.loss)},
                     device.stream());
}

void scale_(const Tensor& tensor, const Tensor& factor) {
  check_device("factor", factor, tensor);
  STD_TORCH_CHECK(factor.numel() == 1, "scale_: expected one factor, got ", factor.numel());
  STD_TORCH_CHECK(is_dense(tensor), "scale_: expected a tensor without gaps or overlaps in memory");
  const cuda::OnDeviceOf device(tensor);
  std::optional<Tensor> holder;
  const cuda::Number number = cuda::device_number(factor, holder);
  cuda::launch_scale(tensor.mutable_data_ptr(), dtype_of(tensor), tensor.numel(), number, device.stream());
}

}  // namespace fused_ml
