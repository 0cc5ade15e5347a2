// The pointwise operators' CPU side.
#include "operators/pointwise_call.h"

#include "operators/tensors.h"

namespace fused_ml {

void run_pointwise(const Tensor&, PointwiseCall& call) {
  const double denominator = call.normalizer ? number_in(*call.normalizer) : call.denominator;
  const double gradient = call.gradient ? number_in(*call.gradient) : 1;
  call.arguments.gradient_scale = denominator == 0 ? 0 : gradient / denominator;
  double sum = 0;
  if (call.loss) call.arguments.sum = &sum;
  kernels().pointwise(call.formula, call.arguments);
  if (call.loss) set_number(*call.loss, sum / denominator);
}

}  // namespace fused_ml
