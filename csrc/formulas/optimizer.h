// What the optimizers' formulas share. A family has
//
//   a struct of options, all double, in the order in which Python sends them, with the family's kName, and
//   kCounts: whether each parameter has a step count; constants_of(options, progress, factor): what one step
//   of one tensor needs, computed in float64, and rounded to the arithmetic type once; updates, told apart by
//   the states that a parameter has: a plain struct of the constants with operator()(A& p, A gradient, A& s0,
//   A& s1, A& s2), whose last arguments are dummies where it has fewer `states`.
//
// Which families and updates there are: catalog/optimizers.h.
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

FUSED_ML_INLINE double power(double base, double exponent) {
#ifdef __CUDACC__
  return pow(base, exponent);
#else
  return __builtin_pow(base, exponent);
#endif
}

// How far a tensor is.
struct Progress {
  double step;  // the number of this step, from 1; 1 where there is no count
  bool first;   // the states are new, and zero
};

// What a step multiplies its gradients by. Loss scaling: torch.amp.GradScaler leaves the gradients scaled and
// hands over the scale, and whether an infinity or NaN was found. Clipping by the global norm: Pascanu,
// Mikolov and Bengio, "On the difficulty of training recurrent neural networks",
// https://arxiv.org/abs/1211.5063 (torch's form: max_norm / (norm + 1e-6), at most 1)
struct GradientScaling {
  double factor;      // 1 / loss scale
  bool scaled;        // by a GradScaler; then
  double found_inf;   // not 0: the step is left out
  bool clipped;       // by the global norm; then
  double square_sum;  // of the gradients as they are, over all parameters
  double max_norm;
};

struct GradientFactor {
  double factor;
  double norm;  // of the unscaled gradients; 0 unless clipped
  bool skipped;
};

FUSED_ML_INLINE GradientFactor gradient_factor(const GradientScaling& s) {
  GradientFactor result{s.factor, 0, s.scaled && s.found_inf != 0};
  if (s.clipped) {
    result.norm = square_root(s.square_sum) * s.factor;
    const bool finite = result.norm - result.norm == 0;
    result.skipped |= s.scaled && !finite;
    const double coefficient = s.max_norm / (result.norm + 1e-6);
    result.factor *= coefficient > 1 ? 1 : coefficient;  // NaN stays
  }
  return result;
}

}  // namespace FUSED_ML_NAMESPACE
