// The operators that have CUDA kernels. Schemas: ../ops.cpp. The tests' emulated build registers them for CPU
// tensors.
#include "../ops.h"

#include "../catalog_operators.h"
#include "../multi_tensor_schemas.h"

#ifndef FUSED_ML_DEVICE_KEY
#define FUSED_ML_DEVICE_KEY CUDA
#endif

// A plan of parameters on a GPU.
STABLE_TORCH_LIBRARY(fused_ml_cuda, m) { fused_ml::define_plan_operators(m); }
STABLE_TORCH_LIBRARY_IMPL(fused_ml_cuda, CompositeExplicitAutograd, m) {
  fused_ml::implement_plan_operators(m);
}

STABLE_TORCH_LIBRARY_IMPL(fused_ml, FUSED_ML_DEVICE_KEY, m) {
  m.impl("cross_entropy", TORCH_BOX(&fused_ml::cross_entropy));
  m.impl("cross_entropy_", TORCH_BOX(&fused_ml::cross_entropy_));
  m.impl("softmax", TORCH_BOX(&fused_ml::softmax));
  m.impl("softmax_backward", TORCH_BOX(&fused_ml::softmax_backward));
  m.impl("log_softmax", TORCH_BOX(&fused_ml::log_softmax));
  m.impl("log_softmax_backward", TORCH_BOX(&fused_ml::log_softmax_backward));
  m.impl("nll_loss", TORCH_BOX(&fused_ml::nll_loss));
  m.impl("nll_loss_backward", TORCH_BOX(&fused_ml::nll_loss_backward));
  m.impl("binary_cross_entropy_with_logits", TORCH_BOX(&fused_ml::binary_cross_entropy_with_logits));
  for (const auto& each : fused_ml::pointwise_operators()) m.impl(each.name.c_str(), each.run);
  m.impl("scale_", TORCH_BOX(&fused_ml::scale_));
  m.impl("sgd_", TORCH_BOX(&fused_ml::sgd_));
  m.impl("adam_", TORCH_BOX(&fused_ml::adam_));
}
