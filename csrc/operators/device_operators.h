// The operators that each library registers for its own device. Schemas: schemas.cpp.
#pragma once

#include "catalog_operators.h"
#include "functions.h"

namespace fused_ml {

template <class Library>
void implement_device_operators(Library& m) {
  m.impl("cross_entropy", TORCH_BOX(&cross_entropy));
  m.impl("cross_entropy_", TORCH_BOX(&cross_entropy_));
  m.impl("softmax", TORCH_BOX(&softmax));
  m.impl("softmax_backward", TORCH_BOX(&softmax_backward));
  m.impl("log_softmax", TORCH_BOX(&log_softmax));
  m.impl("log_softmax_backward", TORCH_BOX(&log_softmax_backward));
  m.impl("nll_loss", TORCH_BOX(&nll_loss));
  m.impl("nll_loss_backward", TORCH_BOX(&nll_loss_backward));
  m.impl("binary_cross_entropy_with_logits", TORCH_BOX(&binary_cross_entropy_with_logits));
  for (const CatalogOperator& each : pointwise_operators()) m.impl(each.name.c_str(), each.run);
  for (const CatalogOperator& each : optimizer_list_operators()) m.impl(each.name.c_str(), each.run);
}

}  // namespace fused_ml
