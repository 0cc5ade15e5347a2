// One instruction set's pointwise kernels: the frame over every formula of the catalog.
#pragma once

#include "catalog/pointwise.h"
#include "frame.h"

namespace FUSED_ML_NAMESPACE {

template <class A, class... F>
void run_pointwise_in(const PointwiseFormula& formula, const PointwiseArguments& a, List<F...>) {
  static constexpr PieceLoops<A> loops[] = {piece_loops_of<F, A>()...};
  A options[kPointwiseOptions];
  for (int i = 0; i < kPointwiseOptions; ++i) options[i] = static_cast<A>(formula.options[i]);
  PointwiseFrame<A>(loops[formula.code], options, a).run();
}

void run_pointwise(const PointwiseFormula& formula, const PointwiseArguments& a) {
  a.x.type == DType::float64 ? run_pointwise_in<double>(formula, a, Pointwise<double>{})
                             : run_pointwise_in<float>(formula, a, Pointwise<float>{});
}

}  // namespace FUSED_ML_NAMESPACE
