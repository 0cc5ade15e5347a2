// Gaussian error linear unit: x P(x), with P the normal distribution function, and its approximation by tanh.
//
//   gelu = x P(x),               derivative P(x) + x p(x),   p = the normal density
//   gelu_tanh = x sigmoid(u),    u = sqrt(8 / pi) (x + 0.044715 x^3)
//
// Hendrycks and Gimpel, "Gaussian Error Linear Units", https://arxiv.org/abs/1606.08415
#pragma once

#include "formulas/normal.h"
#include "formulas/pointwise.h"

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

template <class A>
struct GeluTanh {  // e = 16 exp(-|u|), with u in two parts: no tail loses digits, nor is 0 before x e is
  static constexpr const char* kName = "gelu_tanh";
  static constexpr double kLinear = 1.5957691216057307, kCubic = 0.071354816272600249;
  FUSED_ML_INLINE A prepare(A x) const {
    const A t = within_bell(x), square = t * t,
            rest = A(kLinear - double(A(kLinear)) - 1e-16) + A(kCubic - double(A(kCubic))) * square +
                   A(kCubic) * lost_of_product(t, t, square);
    const A cubic = multiply_add(A(kCubic), square, rest), sum = A(kLinear) + cubic, added = sum - A(kLinear);
    const A lost =
        ((A(kLinear) - (sum - added)) + (cubic - added)) + lost_of_product(A(kCubic), square, cubic) + rest;
    const A u = multiply_add(sum, t, lost * t);
    return exp_nonpositive<4>(-u, -(lost_of_product(sum, t, u) + lost * t));
  }
  FUSED_ML_INLINE A share(A x, A e) const { return select(x < A(0), e, A(16)) / (A(16) + e); }
  FUSED_ML_INLINE A value(A x, A e) const { return x * share(x, e); }
  FUSED_ML_INLINE A slope(A x, A e) const {
    const A t = copy_sign(within_bell(x), x), inner = A(kLinear) + A(3 * kCubic) * t * t;
    return share(x, e) + t * inner * (A(16) * e / ((A(16) + e) * (A(16) + e)));
  }
};

}  // namespace FUSED_ML_NAMESPACE
