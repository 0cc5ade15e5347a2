// The multi_tensor frame's arithmetic loops, over operands that lie flat in memory.
#pragma once

#include "frames/cpu/vectors/convert.h"

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kGranule = kMultiTensorGranule;

// One element. Its own function, for a compiler that keeps an array a lane for whatever a `simd` loop's body
// declares.
template <class F, class T, class S>
FUSED_ML_INLINE void update_one(const F& formula, T* p, const T* g, S* s0, S* s1, S* s2) {
  using A = arithmetic_t<T>;
  A x = load(p), v0 = 0, v1 = 0, v2 = 0;
  if constexpr (F::states > 0) v0 = load(s0);
  if constexpr (F::states > 1) v1 = load(s1);
  if constexpr (F::states > 2) v2 = load(s2);
  formula(x, load(g), v0, v1, v2);
  if constexpr (F::states > 0) store(s0, v0);
  if constexpr (F::states > 1) store(s1, v1);
  if constexpr (F::states > 2) store(s2, v2);
  store(p, x);
}

template <class T>
constexpr bool is_bfloat16 = false;
template <>
constexpr bool is_bfloat16<BFloat16> = true;

// Two neighbouring bfloat16 in one 32-bit word, so that no vector is shuffled: the shuffles and narrowings of
// one element a lane cost as much as the arithmetic.
struct Pair {
  float even, odd;

  FUSED_ML_INLINE static Pair load(const BFloat16* p) {
    uint32_t word;
    memcpy(&word, p, sizeof(word));
    return {bit_cast<float>(word << 16), bit_cast<float>(word & 0xffff0000u)};
  }
  FUSED_ML_INLINE void store(BFloat16* p) const {
    const uint32_t word = rounded(even) >> 16 | (rounded(odd) & 0xffff0000u);
    memcpy(p, &word, sizeof(word));
  }
  // To nearest, ties to even, in the upper half of the bits. A NaN needs no test as in dtype.h: those that
  // arithmetic makes, and those that came from bfloat16, have a lower half of 0, which rounds to themselves.
  FUSED_ML_INLINE static uint32_t rounded(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    return bits + 0x7fffu + ((bits >> 16) & 1u);
  }
};

template <class F>
FUSED_ML_INLINE void update_pair(const F& formula, BFloat16* p, const BFloat16* g, BFloat16* s0, BFloat16* s1,
                                 BFloat16* s2) {
  Pair x = Pair::load(p), v0{}, v1{}, v2{};
  const Pair y = Pair::load(g);
  if constexpr (F::states > 0) v0 = Pair::load(s0);
  if constexpr (F::states > 1) v1 = Pair::load(s1);
  if constexpr (F::states > 2) v2 = Pair::load(s2);
  formula(x.even, y.even, v0.even, v1.even, v2.even);
  formula(x.odd, y.odd, v0.odd, v1.odd, v2.odd);
  if constexpr (F::states > 0) v0.store(s0);
  if constexpr (F::states > 1) v1.store(s1);
  if constexpr (F::states > 2) v2.store(s2);
  x.store(p);
}

// What a run of 64 elements will need some way ahead: the CPU's own prefetching stops at every page.
template <class T>
FUSED_ML_INLINE void prefetch(const T* run) {
  const char* ahead = reinterpret_cast<const char*>(run) + 2048;
  for (size_t line = 0; line < 64 * sizeof(T); line += 64) __builtin_prefetch(ahead + line);
}

// The arithmetic loop. constants: the formula's members, in the arithmetic type. p, g, states[k]: [n], flat;
// operands may be the same memory, element for element.
template <class F, class T, class S>
void update_loop(const void* constants, void* params, const void* grads, void* const* states, int64_t n) {
  F formula;
  memcpy(&formula, constants, sizeof(F));
  T* p = static_cast<T*>(params);
  const T* g = static_cast<const T*>(grads);
  // States that the formula lacks are never read; any pointer can be moved along in their place.
  S* s0 = F::states > 0 ? static_cast<S*>(states[0]) : reinterpret_cast<S*>(p);
  S* s1 = F::states > 1 ? static_cast<S*>(states[1]) : s0;
  S* s2 = F::states > 2 ? static_cast<S*>(states[2]) : s0;
  constexpr int64_t run = 64;
  int64_t i = 0;
  for (; i + run <= n; i += run) {
    prefetch(p + i), prefetch(g + i);
    if constexpr (F::states > 0) prefetch(s0 + i);
    if constexpr (F::states > 1) prefetch(s1 + i);
    if constexpr (F::states > 2) prefetch(s2 + i);
    if constexpr (is_bfloat16<T> && is_bfloat16<S>) {
#pragma omp simd
      for (int64_t j = i; j < i + run; j += 2) update_pair(formula, p + j, g + j, s0 + j, s1 + j, s2 + j);
    } else {
#pragma omp simd
      for (int64_t j = i; j < i + run; ++j) update_one(formula, p + j, g + j, s0 + j, s1 + j, s2 + j);
    }
  }
#pragma omp simd
  for (int64_t j = i; j < n; ++j) update_one(formula, p + j, g + j, s0 + j, s1 + j, s2 + j);
}

// All that the frame is handed of an update: its loop for each pair of types. Halves go through floats.
struct UpdateLoops {
  using Loop = void (*)(const void* constants, void* params, const void* grads, void* const* states,
                        int64_t n);
  int states;
  Loop float32, float64, bfloat16, bfloat16_wide;  // wide: with states of float32
};

template <class F, class D>
constexpr UpdateLoops update_loops_of() {
  static_assert(F::states <= kMultiTensorOperands - 2);
  static_assert(sizeof(F) <= kMultiTensorConstants * sizeof(float));
  constexpr UpdateLoops::Loop narrow = update_loop<F, BFloat16, BFloat16>;
  return {F::states, update_loop<F, float, float>, update_loop<D, double, double>, narrow,
          F::states ? update_loop<F, BFloat16, float> : narrow};
}

constexpr int kSums = 32;

FUSED_ML_INLINE double square(double x) { return x * x; }

// In sums that lie side by side, for additions that do not wait for one another. One stream through memory:
// four, a quarter of a block apart, are read at two thirds of its speed.
template <class T>
FUSED_ML_INLINE void add_squares(const T* x, int64_t n, double* sums) {
  double s[kSums];
  for (int k = 0; k < kSums; ++k) s[k] = sums[k];
  const int64_t whole = n / kSums * kSums;
  for (int64_t i = 0; i < whole; i += kSums) {
    for (int k = 0; k < kSums; ++k) s[k] += square(x[i + k]);
  }
  for (int k = 0; k < kSums; ++k) sums[k] = s[k];
  for (int64_t i = whole; i < n; ++i) sums[i - whole] += square(x[i]);
}

template <class T>
double square_sum_flat(const T* x, int64_t n) {
  double sums[kSums] = {};
  if constexpr (sizeof(T) == 2) {
    alignas(64) float wide[kGranule];
    for (int64_t i = 0; i < n; i += kGranule) {
      const int64_t count = n - i < kGranule ? n - i : kGranule;
      load_run(x + i, count, wide);
      add_squares(wide, count, sums);
    }
  } else {
    add_squares(x, n, sums);
  }
  for (int half = kSums / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) sums[k] += sums[k + half];
  }
  return sums[0];
}

}  // namespace FUSED_ML_NAMESPACE
