// What every CUDA operator opens with.
#pragma once

#ifndef FUSED_ML_EMULATED
#include <torch/csrc/stable/accelerator.h>
#endif

#include "operators/tensors.h"
#include "frames/cuda/arguments.h"
#include "frames/cuda/launch.cuh"

namespace fused_ml::cuda {

// Makes a tensor's device the current one for as long as it lives, and knows torch's stream there.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor& tensor)
#ifndef FUSED_ML_EMULATED
      : guard(tensor.get_device_index()),
        current(current_stream(tensor.get_device_index())){}
#else
      : current(current_stream(0)) {
    (void)tensor;
  }
#endif
        cudaStream_t stream() const {
    return current;
  }

 private:
#ifndef FUSED_ML_EMULATED
  torch::stable::accelerator::DeviceGuard guard;
#endif
  cudaStream_t current;
};

// A number on the device for kernels to read. `holder` keeps it, converted if kernels do not read its dtype.
inline Number device_number(const Tensor& tensor, std::optional<Tensor>& holder) {
  const ScalarType type = tensor.scalar_type();
  holder = type == ScalarType::Double || type == ScalarType::Float || type == ScalarType::Long
               ? tensor
               : torch::stable::to(tensor, ScalarType::Double);
  return {holder->const_data_ptr(), type == ScalarType::Float  ? NumberType::float32
                                    : type == ScalarType::Long ? NumberType::int64
                                                               : NumberType::float64};
}

}  // namespace fused_ml::cuda
