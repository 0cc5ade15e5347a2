// What the frames share: reductions in a fixed number of lanes, so that the additions do not wait for each
// other and their order is the same on every run; and the parallel loop.
#pragma once

#include "dtype.h"

namespace FUSED_ML_NAMESPACE {

constexpr int kWidth = 64;  // independent lanes of a reduction
constexpr int kStep = 16;   // lanes that a step of heavier work takes together: a cache line of floats

// Before a loop over the lanes of a step: independent, and left for the vectoriser. Without the second, gcc
// unrolls so short a loop before it comes to that.
#define FUSED_ML_LANES _Pragma("GCC ivdep") _Pragma("GCC unroll 1")

// A local array, as memory of which gcc knows nothing: it would take a small one apart into scalars, and put
// vectors together from them, and take them apart again, around every loop over them.
template <class T>
FUSED_ML_INLINE T* in_memory(T* lanes) {
  asm("" : "+r"(lanes) : : "memory");
  return lanes;
}

// One of two, by bits: gcc turns `lane = condition ? value : lane` on memory into a masked store under a
// branch, which lanes that differ at random guess wrong half of the time.
template <class B>
FUSED_ML_INLINE B blend_bits(bool condition, B yes, B no) {
  const B mask = static_cast<B>(B{0} - static_cast<B>(condition));
  return static_cast<B>((yes & mask) | (no & ~mask));
}
FUSED_ML_INLINE uint32_t blend(bool condition, uint32_t yes, uint32_t no) {
  return blend_bits(condition, yes, no);
}
FUSED_ML_INLINE uint64_t blend(bool condition, uint64_t yes, uint64_t no) {
  return blend_bits(condition, yes, no);
}
FUSED_ML_INLINE float blend(bool condition, float yes, float no) {
  return bit_cast<float>(blend_bits(condition, bit_cast<uint32_t>(yes), bit_cast<uint32_t>(no)));
}
FUSED_ML_INLINE double blend(bool condition, double yes, double no) {
  return bit_cast<double>(blend_bits(condition, bit_cast<uint64_t>(yes), bit_cast<uint64_t>(no)));
}

// lane[0] = the lanes combined, half with half.
template <int kLanes, class A, class Combine>
FUSED_ML_INLINE A fold(A* lane, Combine combine) {
  if constexpr (kLanes == 1) {
    return lane[0];
  } else {
    A half[kLanes / 2];
#pragma omp simd
    for (int l = 0; l < kLanes / 2; ++l) half[l] = combine(lane[l], lane[l + kLanes / 2]);
    return fold<kLanes / 2>(half, combine);
  }
}
template <int kLanes, class A>
FUSED_ML_INLINE A sum_lanes(A* lane) {
  return fold<kLanes>(lane, [](A a, A b) { return a + b; });
}

template <class A, class Get>
FUSED_ML_INLINE A peak_of(int64_t count, Get get) {
  A lane[kWidth];
  for (int l = 0; l < kWidth; ++l) lane[l] = -Constants<A>::infinity;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
#pragma omp simd
    for (int l = 0; l < kWidth; ++l) lane[l] = maximum(lane[l], get(i + l));
  }
  if (i < count && count >= kWidth) {  // the last ones once more
#pragma omp simd
    for (int l = 0; l < kWidth; ++l) lane[l] = maximum(lane[l], get(count - kWidth + l));
  } else {
    for (int l = 0; i < count; ++i, ++l) lane[l] = maximum(lane[l], get(i));
  }
  return fold<kWidth>(lane, [](A a, A b) { return maximum(a, b); });
}

// In float64 lanes, so that the sum is as good as its terms.
template <class Get>
FUSED_ML_INLINE double sum_of(int64_t count, Get get) {
  constexpr int kSumWidth = 32;
  double lane[kSumWidth];
  for (int l = 0; l < kSumWidth; ++l) lane[l] = 0;
  int64_t i = 0;
  for (; i + kSumWidth <= count; i += kSumWidth) {
#pragma omp simd
    for (int l = 0; l < kSumWidth; ++l) lane[l] = lane[l] + static_cast<double>(get(i + l));
  }
  for (int l = 0; i < count; ++i, ++l) lane[l] = lane[l] + static_cast<double>(get(i));
  return sum_lanes<kSumWidth>(lane);
}

// The same of terms that are added four by four in their own type first: a conversion to float64 takes longer
// than a term. No lane is reached by a number that varies: gcc would keep all of them in memory.
template <class Get>
FUSED_ML_INLINE double sum_by_fours(int64_t count, Get get) {
  using A = decltype(get(int64_t{0}));
  double lane[kStep];
  for (int l = 0; l < kStep; ++l) lane[l] = 0;
  int64_t i = 0;
  for (; i + 4 * kStep <= count; i += 4 * kStep) {
#pragma omp simd
    for (int l = 0; l < kStep; ++l) {
      const int64_t j = i + l;
      lane[l] += static_cast<double>((get(j) + get(j + kStep)) + (get(j + 2 * kStep) + get(j + 3 * kStep)));
    }
  }
  A rest[kStep];  // of four steps at most
  for (int l = 0; l < kStep; ++l) rest[l] = A(0);
  for (; i + kStep <= count; i += kStep) {
#pragma omp simd
    for (int l = 0; l < kStep; ++l) rest[l] += get(i + l);
  }
  if (i < count && count >= kStep) {  // the last step, without what is in the sum already
    const int64_t first = count - kStep;
    const int seen = static_cast<int>(i - first);
#pragma omp simd
    for (int l = 0; l < kStep; ++l) rest[l] += select(l < seen, A(0), get(first + l));
    i = count;
  }
  for (; i < count; ++i) lane[0] += static_cast<double>(get(i));
#pragma omp simd
  for (int l = 0; l < kStep; ++l) lane[l] += static_cast<double>(rest[l]);
  return sum_lanes<kStep>(lane);
}

// The first index for which the condition holds, or -1.
template <class Holds>
FUSED_ML_INLINE int64_t first_where(int64_t count, Holds holds) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    int any = 0;
#pragma omp simd reduction(| : any)
    for (int l = 0; l < kWidth; ++l) any |= static_cast<int>(holds(i + l));
    if (any) {
      int lane[kWidth];
      for (int l = 0; l < kWidth; ++l) lane[l] = holds(i + l) ? l : kWidth;
      return i + fold<kWidth>(lane, [](int a, int b) { return a < b ? a : b; });
    }
  }
  for (; i < count; ++i) {
    if (holds(i)) return i;
  }
  return -1;
}

// Runs `loop(begin, end)` over [0, tasks) on torch's threads.
template <class Loop>
void run_parallel(int64_t tasks, int64_t grain, const Loop& loop) {
  parallel_for(
      tasks, grain,
      [](void* context, int64_t begin, int64_t end) { (*static_cast<const Loop*>(context))(begin, end); },
      const_cast<Loop*>(&loop));
}

inline double sum_in_order(const double* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

}  // namespace FUSED_ML_NAMESPACE
