// The normal distribution: its bell, and its distribution function, of which the lower tail keeps all its
// digits.
//
//   bell(x) = exp(-x^2 / 2),   P(x) = x < 0 ? bell(x) m(-x) : 1 - bell(x) m(x)
//   m(t) = exp(t^2 / 2) P(-t) = p((t - c) / (t + c)) / (1 + sqrt(2 / pi) t),   p a minimax polynomial
//
// After Shepherd and Laframboise, "Chebyshev Approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < inf",
// 1981, https://doi.org/10.1090/S0025-5718-1981-0595058-X
#pragma once

#include "numeric.h"

namespace FUSED_ML_NAMESPACE {

// |x|, or where the bell has underflowed some number beyond. NaN stays.
template <class A>
FUSED_ML_INLINE A within_bell(A x) {
  const A limit = sizeof(A) == sizeof(float) ? A(14) : A(39), t = absolute(x);
  return select(t > limit, limit, t);
}

// For t as within_bell gives it. <= 1.1 ulp: the square is kept in two parts, since the exponential's error
// is that of its argument.
template <class A>
FUSED_ML_INLINE A normal_bell(A t) {
  const A square = t * t;
  return exp_nonpositive(A(-0.5) * square, A(-0.5) * lost_of_product(t, t, square));
}

// p, flat at 0, with relative error 1.2e-9 for t <= 14 and 2.8e-18 for t <= 39.
FUSED_ML_INLINE float normal_tail_polynomial(float t) {
  const float q = (t - 4.0f) / (t + 4.0f);
  float p = -5.57678307e-5f;
  p = p * q - 5.96807126e-5f;
  p = p * q + 0.000517985109f;
  p = p * q - 0.000110939104f;
  p = p * q - 0.00389097763f;
  p = p * q + 0.0125971195f;
  p = p * q - 0.0194514129f;
  p = p * q + 0.00832638734f;
  p = p * q + 0.0363090299f;
  p = p * q - 0.111598216f;
  return p * q + 0.395725814f;
}
FUSED_ML_INLINE double normal_tail_polynomial(double t) {
  const double q = (t - 6.0) / (t + 6.0);
  double p = 0x1.447c6dfa6bafap-30;
  p = p * q + 0x1.3d0e40cbdcb40p-29;
  p = p * q - 0x1.979384453b136p-27;
  p = p * q - 0x1.1dd2b25db4a34p-26;
  p = p * q + 0x1.b131ea4533b70p-24;
  p = p * q + 0x1.9aee3121e7a91p-27;
  p = p * q - 0x1.a000e48391739p-21;
  p = p * q + 0x1.5734aa9155ff8p-20;
  p = p * q + 0x1.e57da9a50e5fcp-19;
  p = p * q - 0x1.4e2c210247956p-16;
  p = p * q + 0x1.b462bc5b20765p-16;
  p = p * q + 0x1.9a5edaa29d9dcp-14;
  p = p * q - 0x1.5867cb0cdf20ap-11;
  p = p * q + 0x1.1829ec721b170p-9;
  p = p * q - 0x1.43e2c2eb74402p-8;
  p = p * q + 0x1.1fc049028ded2p-7;
  p = p * q - 0x1.870ad78dc3e66p-7;
  p = p * q + 0x1.6684bdbc267d7p-7;
  p = p * q - 0x1.6d7d42776dfe0p-10;
  p = p * q - 0x1.4866592d1405dp-6;
  p = p * q + 0x1.b37252e5ad743p-5;
  p = p * q - 0x1.7bdd57bd16503p-4;
  return p * q + 0x1.7fe535aacebb5p-2;
}

// P(x), given t = within_bell(x) and bell = normal_bell(t).
template <class A>
FUSED_ML_INLINE A normal_cdf(A x, A t, A bell) {
  const A tail = bell * (normal_tail_polynomial(t) / (A(1) + A(0.797884560802865355880) * t));
  return select(x < A(0), tail, A(1) - tail);
}
template <class A>
FUSED_ML_INLINE A normal_cdf(A x) {
  const A t = within_bell(x);
  return normal_cdf(x, t, normal_bell(t));
}

}  // namespace FUSED_ML_NAMESPACE
