// Log-sigmoid: log(1 / (1 + exp(-x))) = min(x, 0) - log1p(exp(-|x|)), with derivative sigmoid(-x).
#pragma once

#include "pointwise_types.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
struct LogSigmoid {
  FUSED_ML_INLINE A prepare(A x) const { return exp_nonpositive(-absolute(x)); }
  FUSED_ML_INLINE PointwiseResult<A> operator()(const PointwiseInputs<A>& in, A e) const {
    const A negative_part = select(in.x > A(0), A(0), in.x);
    return {negative_part - log1p_of_fraction(e), in.g * (select(in.x < A(0), A(1), e) / (A(1) + e)), A(0)};
  }
};

}  // namespace FUSED_ML_NAMESPACE
