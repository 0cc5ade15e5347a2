// Rows of which only the own class is read or written, and the sum of the rows' weights: a thread a row.
#pragma once

#include "frame.cuh"

namespace fused_ml::cuda {

__device__ __forceinline__ int64_t row_of_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64_t row_offset(const RowwiseArguments& a, const Stream& s, int64_t row) {
  return row / a.inner * s.by_outer + row % a.inner * s.by_inner;
}

// Calls body with a pointer to the first element of a stream's type.
template <class Body>
__device__ __forceinline__ void with_elements(const Stream& s, DType type, const Body& body) {
  switch (type) {
    case DType::float32:
      return body(static_cast<const float*>(s.data));
    case DType::float64:
      return body(static_cast<const double*>(s.data));
    case DType::bfloat16:
      return body(static_cast<const __nv_bfloat16*>(s.data));
    case DType::float16:
      return body(static_cast<const __half*>(s.data));
  }
}

// loss = -weight * x[own]
template <class A>
__global__ void __launch_bounds__(kMostRowThreads)
    own_class_kernel(const __grid_constant__ RowwiseTask task) {
  const RowwiseArguments& a = task.a;
  const int64_t row = row_of_thread();
  A loss = A(0);
  if (row < a.rows) {
    const Chosen<A> chosen(task, row);
    if (chosen.own >= 0) {
      with_elements(a.x, a.type, [&](const auto* x) {
        loss = -chosen.weight * static_cast<A>(widen(x[row_offset(a, a.x, row) + chosen.own * a.x.by_class]));
      });
    } else if (chosen.bad) {
      loss = Constants<A>::infinity - Constants<A>::infinity;
    }
    if (a.loss) static_cast<A*>(a.loss)[row] = loss;
  }
  put_partial(task, blockIdx.x, static_cast<double>(loss));
}

// out = 0 but -weight * gradient at the own class; out comes zeroed.
template <class A>
__global__ void __launch_bounds__(kMostRowThreads)
    own_class_backward_kernel(const __grid_constant__ RowwiseTask task) {
  const RowwiseArguments& a = task.a;
  const int64_t row = row_of_thread();
  if (row >= a.rows) return;
  const Chosen<A> chosen(task, row);
  const int64_t first = chosen.bad ? 0 : chosen.own, last = chosen.bad ? a.classes : first + 1;
  if (first < 0) return;
  const A value =
      chosen.bad ? Constants<A>::infinity - Constants<A>::infinity : -chosen.weight * chosen.gradient_scale;
  with_elements(a.out, a.out_type, [&](const auto* out) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(out)>>;
    T* const to = const_cast<T*>(out) + row_offset(a, a.out, row);
    for (int64_t c = first; c < last; ++c) to[c * a.out.by_class] = narrow<T>(value);
  });
}

template <class A>
__global__ void __launch_bounds__(kMostRowThreads)
    weights_kernel(const __grid_constant__ RowwiseTask task, bool count_class_weights) {
  const int64_t row = row_of_thread();
  double weight = 0;
  if (row < task.a.rows) {
    const Chosen<A> chosen(task, row);
    if (chosen.keep && !chosen.bad) {
      weight = static_cast<double>(chosen.loss_scale);
      if (count_class_weights) weight *= static_cast<double>(chosen.weight);
    }
  }
  put_partial(task, blockIdx.x, weight);
}

}  // namespace fused_ml::cuda
