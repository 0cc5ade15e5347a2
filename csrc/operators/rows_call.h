// What a device does for the rowwise operators (operators/rows.cpp, which both libraries compile): defined in
// cpu/rows.cpp and in cuda/rows.cpp.
#pragma once

#include "torch_api.h"

namespace fused_ml {

struct RowwiseCall {
  const char* name;  // the operator's, for an error
  RowwiseOp op;
  RowwiseOptions options;
  RowwiseArguments arguments;  // without gradient_scale, loss_sum and bad_row
  // The sum of the losses, and the gradients, are divided by a denominator: by 1, or if `mean` by
  // `normalizer` [], or where that is not there by the sum of the weights of the rows that count.
  bool mean = false;
  bool count_class_weights = true;
  std::optional<Tensor> normalizer;
  std::optional<Tensor> gradient;     // [], the gradients are multiplied by it
  std::optional<Tensor> loss;         // [], receives the sum of the losses over the denominator
  std::optional<Tensor> denominator;  // [], float64: receives it
};

// Raises, with nothing written over the input, if a target is out of range: on the CPU. On CUDA the row's
// loss and gradient are NaN.
void run_rowwise(const Tensor& input, RowwiseCall& call);

// Whether the device's own_class_backward writes the zeros itself, or expects them.
extern const bool kOwnClassBackwardZeroes;

}  // namespace fused_ml
