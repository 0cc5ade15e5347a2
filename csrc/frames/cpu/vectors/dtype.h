// Element types in memory and the arithmetic type each is computed in.
#pragma once

#include "formulas/portable.h"

namespace fused_ml {

// bfloat16 and IEEE half as they lie in memory; arithmetic is float32.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

}  // namespace fused_ml

namespace FUSED_ML_NAMESPACE {

template <class T>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};
template <class T>
using arithmetic_t = typename Arithmetic<T>::type;

FUSED_ML_INLINE float load(const float* p) { return *p; }
FUSED_ML_INLINE double load(const double* p) { return *p; }
FUSED_ML_INLINE float load(const BFloat16* p) {
  return bit_cast<float>(static_cast<uint32_t>(p->bits) << 16);
}

// Branch-free, so that it vectorises on every instruction set, and without denormal arithmetic, so that
// flush-to-zero does not change it: denormal halves are built by subtracting the hidden bit they lack.
FUSED_ML_INLINE float load(const Half* p) {
  const uint32_t h = p->bits;
  const uint32_t sign = (h & 0x8000u) << 16;
  const uint32_t magnitude = (h & 0x7fffu) << 13;
  const uint32_t normal = magnitude + ((127u - 15u) << 23);
  const uint32_t special = normal + ((255u - 31u - (127u - 15u)) << 23);
  const uint32_t lifted = magnitude + ((127u - 14u) << 23);
  const float denormal = bit_cast<float>(lifted) - bit_cast<float>((127u - 14u) << 23);
  const uint32_t bits = magnitude >= (31u << 23) ? special
                        : magnitude < (1u << 23) ? bit_cast<uint32_t>(denormal)
                                                 : normal;
  return bit_cast<float>(bits | sign);
}

FUSED_ML_INLINE void store(float* p, float value) { *p = value; }
FUSED_ML_INLINE void store(double* p, double value) { *p = value; }
FUSED_ML_INLINE void store(float* p, double value) { *p = static_cast<float>(value); }

// Round to nearest, ties to even; NaN stays (quiet) NaN.
FUSED_ML_INLINE void store(BFloat16* p, float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  p->bits = static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
}
FUSED_ML_INLINE void store(Half* p, float value) {
  const uint32_t all = bit_cast<uint32_t>(value);
  const uint32_t sign = (all >> 16) & 0x8000u;
  const uint32_t bits = all & 0x7fffffffu;
  const uint32_t normal = (bits - ((127u - 15u) << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  // Adding 0.5 leaves the denormal half's bits, rounded by the addition itself, at the low end.
  const uint32_t denormal = bit_cast<uint32_t>(bit_cast<float>(bits) + 0.5f) - bit_cast<uint32_t>(0.5f);
  const uint32_t finite = bits < ((127u - 14u) << 23) ? denormal : normal;
  const uint32_t limited = bits >= ((127u + 16u) << 23) ? 0x7c00u : finite;
  p->bits = static_cast<uint16_t>((bits > 0x7f800000u ? 0x7e00u : limited) | sign);
}
FUSED_ML_INLINE void store(BFloat16* p, double value) { store(p, static_cast<float>(value)); }
FUSED_ML_INLINE void store(Half* p, double value) { store(p, static_cast<float>(value)); }

}  // namespace FUSED_ML_NAMESPACE
