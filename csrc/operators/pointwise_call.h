// What a device does for the pointwise operators (operators/pointwise.cpp, which both libraries compile):
// defined in cpu/pointwise.cpp and in cuda/pointwise.cpp.
#pragma once

#include "torch_api.h"

namespace fused_ml {

struct PointwiseCall {
  PointwiseFormula formula;
  PointwiseArguments arguments;      // without gradient_scale and sum
  double denominator = 1;            // of the sum and the gradients, if there is no
  std::optional<Tensor> normalizer;  // [] on the input's device
  std::optional<Tensor> gradient;    // [], on the input's device; the gradients are multiplied by it
  std::optional<Tensor> loss;        // [], receives the sum of the values over the denominator
};

void run_pointwise(const Tensor& input, PointwiseCall& call);

}  // namespace fused_ml
