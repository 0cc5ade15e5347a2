// What the frames share: reductions in a fixed number of lanes, so that the additions do not wait for each
// other and their order is the same on every run; and the parallel loop.
#pragma once

#include "dtype.h"

namespace FUSED_ML_NAMESPACE {

constexpr int kWidth = 64;  // independent lanes of a reduction

template <class A, class Get>
FUSED_ML_INLINE A peak_of(int64_t count, Get get) {
  A lane[kWidth];
  for (int l = 0; l < kWidth; ++l) lane[l] = -Constants<A>::infinity;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
#pragma omp simd
    for (int l = 0; l < kWidth; ++l) lane[l] = maximum(lane[l], get(i + l));
  }
  for (int l = 0; i < count; ++i, ++l) lane[l] = maximum(lane[l], get(i));
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lane[l] = maximum(lane[l], lane[l + half]);
  }
  return lane[0];
}

// In float64 lanes, so that the sum is as good as its terms.
template <class A, class Get>
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
  for (int half = kSumWidth / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  }
  return lane[0];
}

// The first index for which the condition holds, or -1.
template <class Holds>
FUSED_ML_INLINE int64_t first_where(int64_t count, Holds holds) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    int any = 0;
#pragma omp simd reduction(| : any)
    for (int l = 0; l < kWidth; ++l) any |= static_cast<int>(holds(i + l));
    if (any) break;
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
