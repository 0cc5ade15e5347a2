// What the optimizers' formulas share.
#pragma once

#include "numeric.h"

#ifdef __CUDACC__
#include <math.h>
#endif

namespace FUSED_ML_NAMESPACE {

FUSED_ML_INLINE float square_root(float x) {
#ifdef __CUDACC__
  return sqrtf(x);
#else
  return __builtin_sqrtf(x);
#endif
}
FUSED_ML_INLINE double square_root(double x) {
#ifdef __CUDACC__
  return sqrt(x);
#else
  return __builtin_sqrt(x);
#endif
}

// x, or 0 whatever x is. By a mask: around a conditional on a group's option a compiler duplicates the whole
// formula, and computes both copies.
template <class A>
FUSED_ML_INLINE A only_if(bool condition, A x) {
  using Bits = typename Constants<A>::Bits;
  return bit_cast<A>(static_cast<Bits>(bit_cast<Bits>(x) & (Bits{0} - static_cast<Bits>(condition))));
}

}  // namespace FUSED_ML_NAMESPACE
