// Gaussian error linear unit: x P(x), with P the normal distribution function; derivative P(x) + x p(x), with
// p the normal density.
//
// Hendrycks and Gimpel, "Gaussian Error Linear Units", https://arxiv.org/abs/1606.08415
#pragma once

#include "../normal.h"
#include "../pointwise.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
struct Gelu {
  static constexpr const char* kName = "gelu";
  FUSED_ML_INLINE A prepare(A x) const { return normal_bell(within_bell(x)); }
  FUSED_ML_INLINE A value(A x, A bell) const { return x * normal_cdf(x, within_bell(x), bell); }
  FUSED_ML_INLINE A slope(A x, A bell) const {
    const A t = within_bell(x);
    return normal_cdf(x, t, bell) + copy_sign(t, x) * (A(0.398942280401432678) * bell);
  }
};

}  // namespace FUSED_ML_NAMESPACE
