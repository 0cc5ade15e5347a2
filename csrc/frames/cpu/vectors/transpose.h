// Rows of a few float32 classes to and from [classes, lanes]: blocks of 8 x 8 turned in registers, the last
// block of each row overlapping the one before it.
#pragma once

#include "vector_loops.h"

namespace FUSED_ML_NAMESPACE {

typedef float Eight __attribute__((vector_size(32)));
typedef float EightAnywhere __attribute__((vector_size(32), aligned(4), may_alias));
typedef int EightIndices __attribute__((vector_size(32)));

FUSED_ML_INLINE Eight eight_at(const float* p) { return *reinterpret_cast<const EightAnywhere*>(p); }
FUSED_ML_INLINE void put_eight(float* p, Eight v) { *reinterpret_cast<EightAnywhere*>(p) = v; }

// Four rows of a and four of b, each half turned on its own. Scalars and no arrays: gcc keeps arrays in
// memory.
struct FourEights {
  Eight a, b, c, d;
};
FUSED_ML_INLINE FourEights turn_halves(Eight r0, Eight r1, Eight r2, Eight r3) {
  const EightIndices low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
  const EightIndices even = {0, 1, 8, 9, 4, 5, 12, 13}, odd = {2, 3, 10, 11, 6, 7, 14, 15};
  const Eight t0 = __builtin_shuffle(r0, r1, low), t1 = __builtin_shuffle(r0, r1, high);
  const Eight t2 = __builtin_shuffle(r2, r3, low), t3 = __builtin_shuffle(r2, r3, high);
  return {__builtin_shuffle(t0, t2, even), __builtin_shuffle(t0, t2, odd), __builtin_shuffle(t1, t3, even),
          __builtin_shuffle(t1, t3, odd)};
}

// to[j * to_step + i] = from[i * from_step + j] for i < 8, j < rows_out <= 8.
FUSED_ML_INLINE void transpose_eight(const float* from, int64_t from_step, float* to, int64_t to_step,
                                     int64_t rows_out) {
  const EightIndices left = {0, 1, 2, 3, 8, 9, 10, 11}, right = {4, 5, 6, 7, 12, 13, 14, 15};
  const FourEights p = turn_halves(eight_at(from), eight_at(from + from_step), eight_at(from + 2 * from_step),
                                   eight_at(from + 3 * from_step));
  const FourEights q = turn_halves(eight_at(from + 4 * from_step), eight_at(from + 5 * from_step),
                                   eight_at(from + 6 * from_step), eight_at(from + 7 * from_step));
  put_eight(to, __builtin_shuffle(p.a, q.a, left));
  if (rows_out > 1) put_eight(to + to_step, __builtin_shuffle(p.b, q.b, left));
  if (rows_out > 2) put_eight(to + 2 * to_step, __builtin_shuffle(p.c, q.c, left));
  if (rows_out > 3) put_eight(to + 3 * to_step, __builtin_shuffle(p.d, q.d, left));
  if (rows_out > 4) put_eight(to + 4 * to_step, __builtin_shuffle(p.a, q.a, right));
  if (rows_out > 5) put_eight(to + 5 * to_step, __builtin_shuffle(p.b, q.b, right));
  if (rows_out > 6) put_eight(to + 6 * to_step, __builtin_shuffle(p.c, q.c, right));
  if (rows_out > 7) put_eight(to + 7 * to_step, __builtin_shuffle(p.d, q.d, right));
}

// How many of `rows` rows, `step` apart, can be turned whole: with under 8 classes a row is read, and
// written, into the next, which must be there.
inline int64_t whole_rows(int64_t rows, int64_t classes, int64_t step) {
  if (classes >= 8) return rows / 8 * 8;
  return step == classes ? (rows * classes >= 8 ? (rows - divide_up(8 - classes, classes)) / 8 * 8 : 0) : 0;
}

// Lane l of class c of step s is at tile[(s * classes + c) * kStep + l].
inline int64_t lane_at(int64_t row, int64_t classes, int64_t c) {
  return (row / kStep * classes + c) * kStep + row % kStep;
}

// From rows `step` apart to lanes, for the first whole_rows rows, which it returns.
inline int64_t rows_to_tile(const float* from, int64_t step, int64_t rows, int64_t classes, float* tile) {
  const int64_t whole = whole_rows(rows, classes, step);
  for (int64_t row = 0; row < whole; row += 8) {
    for (int64_t c = 0; c < classes; c += 8) {
      const int64_t first = c + 8 <= classes || classes < 8 ? c : classes - 8;
      transpose_eight(from + row * step + first, step, tile + lane_at(row, classes, first), kStep,
                      classes < 8 ? classes : 8);
    }
  }
  return whole;
}

// From lanes to rows, the same way; a tile of under 8 classes is followed by spare memory.
inline int64_t tile_to_rows(const float* tile, int64_t rows, int64_t classes, float* to, int64_t step) {
  const int64_t whole = whole_rows(rows, classes, step);
  for (int64_t row = 0; row < whole; row += 8) {
    for (int64_t c = 0; c < classes; c += 8) {
      const int64_t first = c + 8 <= classes || classes < 8 ? c : classes - 8;
      transpose_eight(tile + lane_at(row, classes, first), kStep, to + row * step + first, step, 8);
    }
  }
  return whole;
}

}  // namespace FUSED_ML_NAMESPACE
