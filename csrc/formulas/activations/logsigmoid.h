// Log-sigmoid: log(1 / (1 + exp(-x))) = min(x, 0) - log1p(exp(-|x|)), with derivative sigmoid(-x).
#pragma once

#include "formulas/pointwise.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
struct LogSigmoid {
  static constexpr const char* kName = "logsigmoid";
  static constexpr bool kContiguous = true;  // torch's result is, whatever the input
  FUSED_ML_INLINE A prepare(A x) const { return exp_nonpositive(-absolute(x)); }
  FUSED_ML_INLINE A value(A x, A e) const { return select(x > A(0), A(0), x) - log1p_of_fraction(e); }
  FUSED_ML_INLINE A slope(A x, A e) const { return select(x < A(0), A(1), e) / (A(1) + e); }
};

}  // namespace FUSED_ML_NAMESPACE
