// The pointwise operators' CUDA side.
#include "../pointwise_device.h"

#include "on_device.h"

namespace fused_ml {

void run_pointwise(const Tensor& input, PointwiseCall& call) {
  const cuda::OnDeviceOf device(input);
  cuda::PointwiseTask task;
  task.a = call.arguments;
  task.a.gradient_scale = call.denominator == 0 ? 0 : 1 / call.denominator;
  std::optional<Tensor> normalizer, partials;
  if (call.normalizer) task.denominator = cuda::device_number(*call.normalizer, normalizer);
  if (call.loss) {
    partials = new_vector(input, cuda::most_blocks(), ScalarType::Double);
    task.partials = partials->mutable_data_ptr<double>();
  }
  const int64_t count = cuda::launch_pointwise(call.op, call.options, task, device.stream());
  if (!call.loss) return;
  cuda::launch_total({task.partials, count, call.denominator, task.denominator, call.loss->mutable_data_ptr(),
                      dtype_of(*call.loss)},
                     device.stream());
}

}  // namespace fused_ml
