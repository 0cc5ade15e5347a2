// One instruction set's optimizer steps: the frame over every update of the catalog.
#pragma once

#include "catalog/optimizers.h"
#include "frame.h"

namespace FUSED_ML_NAMESPACE {

template <class... F, class... D>
const UpdateLoops& loops_at(int code, List<F...>, List<D...>) {
  static constexpr UpdateLoops loops[] = {update_loops_of<typename F::Formula, typename D::Formula>()...};
  return loops[code];
}

void multi_tensor_update(int code, const MultiTensorArguments& a) {
  run_update(loops_at(code, Updates<float>{}, Updates<double>{}), a);
}

}  // namespace FUSED_ML_NAMESPACE
