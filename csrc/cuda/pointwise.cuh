// The pointwise frame on CUDA: elements of any strides, with an optional sum. No mathematics, no torch.
//
// A formula is a function PointwiseInputs<A> -> PointwiseResult<A>. A thread takes runs of kRun elements, a
// grid apart. Where every operand lies so that runs are 16-byte aligned, kRun is the elements of 16 bytes,
// and what lies before the first aligned element and after the last whole run is taken one by one; else kRun
// is 1. Sums are in float64 throughout.
#pragma once

#include "../formulas/pointwise_types.h"
#include "pointwise_run.cuh"
#include "reduce.cuh"

namespace fused_ml::cuda {

using formulas::PointwiseInputs;
using formulas::PointwiseResult;

constexpr int kPointwiseThreads = 256;

// What is asked for: the value (or its sum), the gradients, or both. What nobody wants is not computed.
enum class Wanted { value, gradient, both };

// An element's place in every operand.
struct Places {
  int64_t x = 0, t = 0, w = 0, p = 0, g = 0, value = 0, dx = 0, dt = 0;

  __device__ __forceinline__ void add(const PointwiseArguments& a, int dim, int64_t index) {
    x += index * a.x.strides[dim];
    t += index * a.t.strides[dim];
    w += index * a.w.strides[dim];
    p += index * a.p.strides[dim];
    g += index * a.g.strides[dim];
    value += index * a.value.strides[dim];
    dx += index * a.dx.strides[dim];
    dt += index * a.dt.strides[dim];
  }

  template <class Index>
  __device__ __forceinline__ void split(const PointwiseArguments& a, Index element) {
    for (int d = a.dims - 1; d > 0; --d) {
      const Index size = static_cast<Index>(a.sizes[d]), rest = element / size;
      add(a, d, static_cast<int64_t>(element - rest * size));
      element = rest;
    }
    add(a, 0, static_cast<int64_t>(element));
  }

  __device__ __forceinline__ static Places of(const PointwiseArguments& a, int64_t element) {
    Places at;
    if (a.dims == 1) {
      at.add(a, 0, element);
    } else if (a.numel <= 0xffffffffll) {  // a 64-bit division takes several times as long
      at.split(a, static_cast<uint32_t>(element));
    } else {
      at.split(a, static_cast<uint64_t>(element));
    }
    return at;
  }
};

template <class F, class A, int kRun, bool kMixed, Wanted kWanted>
class PointwiseBody {
 public:
  __device__ __forceinline__ PointwiseBody(const F& formula, const PointwiseTask& task)
      : f(formula), a(task.a), scale(static_cast<A>(task.a.gradient_scale)) {
    if (kWanted == Wanted::value || !task.denominator.data) return;
    const double denominator = get_number(task.denominator);
    scale = static_cast<A>(denominator == 0 ? 0 : 1 / denominator);
  }

  // kRun elements from `element` on. Returns the sum of their values.
  __device__ __forceinline__ double take(int64_t element) const {
    const Places at = Places::of(a, element);
    A value[kRun], dx[kRun], dt[kRun];
    compute(at, value, dx, dt);
    double sum = 0;
    if constexpr (kWanted != Wanted::gradient) {
#pragma unroll
      for (int i = 0; i < kRun; ++i) sum += static_cast<double>(value[i]);
      if (a.value.data) Operand::put(a.value, at.value, value);
    }
    if constexpr (kWanted != Wanted::value) {
      if (a.dx.data) Operand::put(a.dx, at.dx, dx);
      if (a.dt.data) Operand::put(a.dt, at.dt, dt);
    }
    return sum;
  }

 private:
  using Operand = Run<A, kRun, kMixed>;
  const F& f;
  const PointwiseArguments& a;
  A scale;  // the gradient of every value, where there is no g

  __device__ __forceinline__ void compute(const Places& at, A (&value)[kRun], A (&dx)[kRun],
                                          A (&dt)[kRun]) const {
    const int inner = a.dims - 1;
    Operand x, t, w, p, g;
    x.fetch(a.x, at.x, a.x.strides[inner]);
    t.fetch(a.t, at.t, a.t.strides[inner]);
    w.fetch(a.w, at.w, a.w.strides[inner]);
    p.fetch(a.p, at.p, a.p.strides[inner]);
    g.fetch(a.g, at.g, a.g.strides[inner]);
    A x_of[kRun], t_of[kRun], w_of[kRun], p_of[kRun], g_of[kRun];
    x.widen(a.x, a.x.strides[inner], A(0), x_of);
    t.widen(a.t, a.t.strides[inner], A(0), t_of);
    w.widen(a.w, a.w.strides[inner], A(1), w_of);
    p.widen(a.p, a.p.strides[inner], A(1), p_of);
    g.widen(a.g, a.g.strides[inner], scale, g_of);
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const PointwiseResult<A> r = f(PointwiseInputs<A>{x_of[i], t_of[i], w_of[i], p_of[i], g_of[i]});
      value[i] = r.value;
      dx[i] = r.dx;
      dt[i] = r.dt;
    }
  }
};

template <class F, class A, int kRun, bool kMixed, Wanted kWanted>
__global__ void __launch_bounds__(kPointwiseThreads)
    pointwise_kernel(const __grid_constant__ PointwiseTask task, const F f) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kPointwiseThreads + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kPointwiseThreads;
  const PointwiseBody<F, A, kRun, kMixed, kWanted> body(f, task);
  double sum = 0;
  for (int64_t run = thread; run < task.runs; run += threads) sum += body.take(task.head + run * kRun);
  if constexpr (kRun > 1) {
    const PointwiseBody<F, A, 1, kMixed, kWanted> ragged(f, task);
    const int64_t in_runs = task.runs * kRun;
    for (int64_t i = thread; i < task.a.numel - in_runs; i += threads)
      sum += ragged.take(i < task.head ? i : i + in_runs);
  }
  if constexpr (kWanted != Wanted::gradient) {
    if (!task.partials) return;
    sum = block_sum<kPointwiseThreads>(sum);
    if (threadIdx.x == 0) task.partials[blockIdx.x] = sum;
  }
}

}  // namespace fused_ml::cuda
