// What a device does for the optimizers' operators (operators/optimizer_step.cpp, which both libraries
// compile): defined in cpu/optimizer_step.cpp and in cuda/optimizer_step.cpp.
#pragma once

#include "plan.h"

namespace fused_ml {

// One step of a plan, whose tensors and options have been checked.
struct StepCall {
  int family;                   // of catalog/optimizers.h
  std::vector<double> options;  // each group's in turn, in the order of the family's struct
  std::vector<Tensor> numbers;  // options that lie on the device: options[places[i]] is numbers[i]
  std::vector<int64_t> places;
  double gradient_factor = 1;                   // before those that follow
  std::optional<Tensor> grad_scale, found_inf;  // [], from a GradScaler
  std::optional<Tensor> square_sum;             // [], float64, of all gradients: they are clipped
  double max_norm = 0;
};

// Whether the device's kernels can follow the tensor's pointer.
bool lies_on_device_of(const Tensor& tensor, const Tensor& like);

// Of the bound gradients, unscaled: [], float64.
Tensor square_sum(Plan& plan);

// -> where gradients are clipped the norm [], float64 if a parameter is, else float32, and whether the step
// was skipped [], 0 or 1 in float32; else nothing.
std::vector<Tensor> run_step(Plan& plan, const StepCall& call);

}  // namespace fused_ml
