// The operators that have CUDA kernels. Schemas: ../schemas.cpp. The tests' emulated build registers them for
// CPU tensors.
#include "operators/functions.h"

#include "operators/device_operators.h"
#include "operators/plan_operators.h"

#ifndef FUSED_ML_DEVICE_KEY
#define FUSED_ML_DEVICE_KEY CUDA
#endif

// A plan of parameters on a GPU.
STABLE_TORCH_LIBRARY(fused_ml_cuda, m) { fused_ml::define_plan_operators(m); }
STABLE_TORCH_LIBRARY_IMPL(fused_ml_cuda, CompositeExplicitAutograd, m) {
  fused_ml::implement_plan_operators(m);
}

STABLE_TORCH_LIBRARY_IMPL(fused_ml, FUSED_ML_DEVICE_KEY, m) {
  fused_ml::implement_device_operators(m);
  m.impl("scale_", TORCH_BOX(&fused_ml::scale_));
}
