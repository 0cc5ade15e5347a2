// One instruction set's optimizer steps.
#pragma once

#include "../formulas/adam.h"
#include "../formulas/sgd.h"
#include "multi_tensor.h"

namespace FUSED_ML_NAMESPACE {

void multi_tensor_update(MultiTensorFormula formula, const MultiTensorArguments& a) {
  switch (formula) {
    case MultiTensorFormula::sgd:
      return update_with<Sgd>(a);
    case MultiTensorFormula::sgd_momentum:
      return update_with<SgdMomentum>(a);
    case MultiTensorFormula::adam:
      return update_with<Adam>(a);
    case MultiTensorFormula::adam_amsgrad:
      return update_with<AdamAmsgrad>(a);
  }
}

}  // namespace FUSED_ML_NAMESPACE
