// Halves to floats and back, many at a time: by the CPU's own conversion where the region has it, which a
// compiler does not find in the scalar code of dtype.h, by that code where it has not.
#pragma once

#include "dtype.h"

namespace FUSED_ML_NAMESPACE {

#ifdef FUSED_ML_F16C
inline void widen(const Half* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  }
  for (; i < n; ++i) to[i] = load(from + i);
}
inline void narrow(const float* from, int64_t n, Half* to) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < n; ++i) store(to + i, from[i]);
}
#else
inline void widen(const Half* from, int64_t n, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = load(from + i);
}
inline void narrow(const float* from, int64_t n, Half* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(to + i, from[i]);
}
#endif

}  // namespace FUSED_ML_NAMESPACE
