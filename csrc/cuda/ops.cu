// The operators that have CUDA kernels. Schemas: ../ops.cpp. The tests' emulated build registers them for CPU
// tensors.
#include "../ops.h"

#ifndef FUSED_ML_DEVICE_KEY
#define FUSED_ML_DEVICE_KEY CUDA
#endif

STABLE_TORCH_LIBRARY_IMPL(fused_ml, FUSED_ML_DEVICE_KEY, m) {
  m.impl("binary_cross_entropy_with_logits", TORCH_BOX(&fused_ml::binary_cross_entropy_with_logits));
  m.impl("logsigmoid", TORCH_BOX(&fused_ml::logsigmoid));
  m.impl("logsigmoid_backward", TORCH_BOX(&fused_ml::logsigmoid_backward));
}
