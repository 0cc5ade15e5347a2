// The pointwise frame on CUDA: elements of any strides, with an optional sum. No mathematics, no torch.
//
// A formula is a function (PointwiseInputs<A>, prepare(x)) -> PointwiseResult<A>. A thread takes runs of kRun
// elements, a grid apart. Where every operand lies so that runs are 16-byte aligned, kRun is the elements of
// 16 bytes, and what lies before the first aligned element and after the last whole run is taken one by one;
// else kRun is 1. Sums are in float64 throughout.
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

// How a kernel is compiled.
template <class Arithmetic, int kRunSize, bool kMixedTypes, bool kEvenWeights, Wanted kWantedResults>
struct Variant {
  using A = Arithmetic;
  static constexpr int kRun = kRunSize;
  static constexpr bool kMixed = kMixedTypes;  // operands of other types than A
  static constexpr bool kEven =
      kEvenWeights;  // w, p and g are each one number for all elements, or not there
  static constexpr bool kValue = kWantedResults != Wanted::gradient;
  static constexpr bool kGradient = kWantedResults != Wanted::value;
  using Operand = Run<A, kRun, kMixed>;
  using OneByOne = Variant<A, 1, kMixed, kEven, kWantedResults>;
};

template <class A>
struct Weights {
  A w, p, g;
};

// Those of all elements where V::kEven; else w and p are not used, and g where there is no such operand.
template <class V>
__device__ __forceinline__ Weights<typename V::A> weights(const PointwiseTask& task) {
  using A = typename V::A;
  double scale = task.a.gradient_scale;
  if (V::kGradient && task.numerator.data) scale *= get_number(task.numerator);
  if (V::kGradient && task.denominator.data) {
    const double denominator = get_number(task.denominator);
    scale = denominator == 0 ? 0 : scale / denominator;
  }
  if (!V::kEven || task.a.numel == 0) return {A(1), A(1), static_cast<A>(scale)};
  const auto first = [](const Elements& e, A absent) {
    A value[1];
    Run<A, 1, V::kMixed> one;
    one.fetch(e, 0, 0);
    one.widen(e, 0, absent, value);
    return value[0];
  };
  return {first(task.a.w, A(1)), first(task.a.p, A(1)), first(task.a.g, static_cast<A>(scale))};
}

template <class V, class F>
class PointwiseBody {
 public:
  using A = typename V::A;
  using Operand = typename V::Operand;
  static constexpr int kRun = V::kRun;

  __device__ __forceinline__ PointwiseBody(const F& formula, const PointwiseArguments& arguments,
                                           const Weights<A>& weights)
      : f(formula), a(arguments), even(weights), inner(arguments.dims - 1) {}

  // kRun elements from `element` on. Returns the sum of their values.
  __device__ __forceinline__ double take(int64_t element) const {
    const Places at = Places::of(a, element);
    A value[kRun], dx[kRun], dt[kRun];
    compute(at, value, dx, dt);
    double sum = 0;
    if constexpr (V::kValue) {
#pragma unroll
      for (int i = 0; i < kRun; ++i) sum += static_cast<double>(value[i]);
      if (a.value.data) Operand::put(a.value, at.value, value);
    }
    if constexpr (V::kGradient) {
      if (a.dx.data) Operand::put(a.dx, at.dx, dx);
      if (a.dt.data) Operand::put(a.dt, at.dt, dt);
    }
    return sum;
  }

 private:
  const F& f;
  const PointwiseArguments& a;
  const Weights<A>& even;
  const int inner;

  __device__ __forceinline__ void compute(const Places& at, A (&value)[kRun], A (&dx)[kRun],
                                          A (&dt)[kRun]) const {
    Operand x, t, w, p, g;
    fetch(x, a.x, at.x);
    fetch(t, a.t, at.t);
    if constexpr (!V::kEven) {
      fetch(w, a.w, at.w);
      fetch(p, a.p, at.p);
      fetch(g, a.g, at.g);
    }
    A x_of[kRun], t_of[kRun], w_of[kRun], p_of[kRun], g_of[kRun];
    widen(x, a.x, A(0), x_of);
    widen(t, a.t, A(0), t_of);
    if constexpr (!V::kEven) {
      widen(w, a.w, A(1), w_of);
      widen(p, a.p, A(1), p_of);
      widen(g, a.g, even.g, g_of);
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      PointwiseInputs<A> in{x_of[i], t_of[i], even.w, even.p, even.g};
      if constexpr (!V::kEven) in = {x_of[i], t_of[i], w_of[i], p_of[i], g_of[i]};
      const PointwiseResult<A> r = f(in, f.prepare(in.x));
      value[i] = r.value;
      dx[i] = r.dx;
      dt[i] = r.dt;
    }
  }
  __device__ __forceinline__ void fetch(Operand& to, const Elements& e, int64_t at) const {
    to.fetch(e, at, e.strides[inner]);
  }
  __device__ __forceinline__ void widen(const Operand& from, const Elements& e, A absent,
                                        A (&to)[kRun]) const {
    from.widen(e, e.strides[inner], absent, to);
  }
};

template <class V, class F>
__global__ void __launch_bounds__(kPointwiseThreads, 1)
    pointwise_kernel(const __grid_constant__ PointwiseTask task, const F f) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kPointwiseThreads + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kPointwiseThreads;
  const auto even = weights<V>(task);
  const PointwiseBody<V, F> runs(f, task.a, even);
  double sum = 0;
  for (int64_t run = thread; run < task.runs; run += threads) sum += runs.take(task.head + run * V::kRun);
  if constexpr (V::kRun > 1) {
    const PointwiseBody<typename V::OneByOne, F> ragged(f, task.a, even);
    const int64_t in_runs = task.runs * V::kRun;
    for (int64_t i = thread; i < task.a.numel - in_runs; i += threads)
      sum += ragged.take(i < task.head ? i : i + in_runs);
  }
  if constexpr (V::kValue) {
    if (!task.partials) return;
    sum = block_sum<kPointwiseThreads>(sum);
    if (threadIdx.x == 0) task.partials[blockIdx.x] = sum;
  }
}

}  // namespace fused_ml::cuda
