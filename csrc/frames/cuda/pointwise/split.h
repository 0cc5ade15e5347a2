// How the elements of a pointwise operator fall into runs that every operand holds 16-byte aligned: host
// code.
#pragma once

#include <algorithm>
#include <array>

#include "frames/cuda/arguments.h"

namespace fused_ml::cuda {

inline std::array<const Elements*, 8> operands(const PointwiseArguments& a) {
  return {&a.x, &a.t, &a.w, &a.p, &a.g, &a.value, &a.dx, &a.dt};
}

inline bool of_one_type(const PointwiseArguments& a, DType type) {
  for (const Elements* e : operands(a)) {
    if (e->data && e->type != type) return false;
  }
  return true;
}

// Whether the operand is one number for all elements, or not there.
inline bool is_even(const PointwiseArguments& a, const Elements& e) {
  return !e.data || std::all_of(e.strides, e.strides + a.dims, [](int64_t stride) { return stride == 0; });
}

inline int64_t bytes_in(DType type) { return type == DType::float64 ? 8 : type == DType::float32 ? 4 : 2; }

// Whether runs of this operand that start `head` elements in are aligned. The inner step is 1, or 0 of an
// operand whose one element stands for all; every other dimension leads to an aligned place.
inline bool aligned(const PointwiseArguments& a, const Elements& e, int64_t head) {
  const int64_t step = e.strides[a.dims - 1], bytes = bytes_in(e.type);
  if (!e.data || step == 0) return true;
  if (step != 1 || (reinterpret_cast<uintptr_t>(e.data) + head * bytes) % 16 != 0) return false;
  for (int d = 0; d + 1 < a.dims; ++d) {
    if (e.strides[d] * bytes % 16 != 0) return false;
  }
  return true;
}

// Sets task.head and task.runs for runs of `size` elements, or for runs of one element, and then returns
// false. A ragged head and tail are possible only where all operands are one stretch of memory.
inline bool split_into_runs(int size, PointwiseTask& task) {
  const PointwiseArguments& a = task.a;
  const bool whole_rows = a.sizes[a.dims - 1] % size == 0;
  const int heads = a.dims == 1 ? size : whole_rows ? 1 : 0;
  for (int64_t head = 0; head < heads && head <= a.numel; ++head) {
    bool fits = true;
    for (const Elements* e : operands(a)) fits = fits && aligned(a, *e, head);
    if (!fits) continue;
    task.head = head;
    task.runs = (a.numel - head) / size;
    return true;
  }
  task.head = 0;
  task.runs = a.numel;
  return false;
}

}  // namespace fused_ml::cuda
