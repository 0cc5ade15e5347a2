// The pointwise frame on CUDA: elements of any strides, with an optional sum. No mathematics, no torch.
//
// A thread takes runs of kRun elements, a grid apart. Where every operand lies so that runs are 16-byte
// aligned, kRun is 4 of float32 and 8 of mixed types, and what lies before the first aligned element and
// after the last whole run is taken one by one; else kRun is 1. Sums are in float64 throughout. A kernel has
// code for the operands of its formula and variant alone, and its index loops are rolled: every byte is there
// for each of some hundred formulas.
#pragma once

#include "formulas/pointwise.h"
#include "run.cuh"
#include "frames/cuda/reduce.cuh"

namespace fused_ml::cuda {

using formulas::PointwiseInputs;
using formulas::PointwiseResult;

constexpr int kPointwiseThreads = 256;

enum Operand : unsigned { kX = 1, kT = 2, kW = 4, kP = 8, kG = 16, kValue = 32, kDx = 64, kDt = 128 };

// How a kernel is compiled. kMixedTypes: operands of other types than A. kEvenWeights: w, p and g are each
// one number for all elements, or not there. What is asked for: the value (or its sum), the gradients, or
// both.
template <class Formula, class Arithmetic, int kRunSize, bool kMixedTypes, bool kEvenWeights,
          bool kWantsValue, bool kWantsGradient>
struct Variant {
  using F = Formula;
  using A = Arithmetic;
  static constexpr int kRun = kRunSize;
  static constexpr bool kMixed = kMixedTypes, kEven = kEvenWeights;
  static constexpr bool kLoss = !formulas::kActivation<F>, kThird = formulas::kTakesP<F, A>;
  static constexpr unsigned kOperands = kX | (kLoss ? kT : 0u) | (kLoss && !kEven ? kW : 0u) |
                                        (kThird && !kEven ? kP : 0u) | (kWantsGradient && !kEven ? kG : 0u) |
                                        (kWantsValue ? kValue : 0u) | (kWantsGradient ? kDx : 0u) |
                                        (kWantsGradient && kLoss ? kDt : 0u);
  using Values = Run<A, kRun, kMixed>;
  using OneByOne = Variant<F, A, 1, kMixed, kEven, kWantsValue, kWantsGradient>;
};

// An element's place in every operand.
template <unsigned kOperands>
struct Places {
  int64_t x = 0, t = 0, w = 0, p = 0, g = 0, value = 0, dx = 0, dt = 0;

  __device__ __forceinline__ Places(const PointwiseArguments& a, int64_t element) {
#pragma unroll 1
    for (int d = a.dims - 1; d > 0; --d) {
      const int64_t size = a.sizes[d], rest = quotient(element, size);
      add(a, d, element - rest * size);
      element = rest;
    }
    add(a, 0, element);
  }

 private:
  __device__ __forceinline__ void add(const PointwiseArguments& a, int dim, int64_t index) {
    if constexpr (kOperands & kX) x += index * a.x.strides[dim];
    if constexpr (kOperands & kT) t += index * a.t.strides[dim];
    if constexpr (kOperands & kW) w += index * a.w.strides[dim];
    if constexpr (kOperands & kP) p += index * a.p.strides[dim];
    if constexpr (kOperands & kG) g += index * a.g.strides[dim];
    if constexpr (kOperands & kValue) value += index * a.value.strides[dim];
    if constexpr (kOperands & kDx) dx += index * a.dx.strides[dim];
    if constexpr (kOperands & kDt) dt += index * a.dt.strides[dim];
  }
};

template <class A>
struct Weights {
  A w, p, g;
};

// Those of all elements where V::kEven; else what stands for an operand that is not there.
template <class V>
__device__ __forceinline__ Weights<typename V::A> weights(const PointwiseTask& task) {
  using A = typename V::A;
  double scale = task.a.gradient_scale;
  if ((V::kOperands & kDx) && task.numerator.data) scale *= get_number(task.numerator);
  if ((V::kOperands & kDx) && task.denominator.data) {
    const double denominator = get_number(task.denominator);
    scale = denominator == 0 ? 0 : scale / denominator;
  }
  Weights<A> all{A(1), A(1), static_cast<A>(scale)};
  if (!V::kEven || task.a.numel == 0) return all;
  const auto first = [](const Elements& e, A absent) {
    A value[1];
    Run<A, 1, V::kMixed> one;
    one.fetch(e, 0, 0);
    one.widen(e, 0, absent, value);
    return value[0];
  };
  if constexpr (V::kLoss) all.w = first(task.a.w, all.w);
  if constexpr (V::kThird) all.p = first(task.a.p, all.p);
  if constexpr (V::kOperands & kDx) all.g = first(task.a.g, all.g);
  return all;
}

template <class V>
class PointwiseBody {
 public:
  using A = typename V::A;
  using F = typename V::F;
  using Values = typename V::Values;
  static constexpr int kRun = V::kRun;
  static constexpr unsigned kOperands = V::kOperands;

  __device__ __forceinline__ PointwiseBody(const F& formula, const PointwiseArguments& arguments,
                                           const Weights<A>& weights)
      : f(formula), a(arguments), even(weights), inner(arguments.dims - 1) {}

  // kRun elements from `element` on. Returns the sum of their values.
  __device__ __forceinline__ double take(int64_t element) const {
    const Places<kOperands> at(a, element);
    Values x, t, w, p, g;
    fetch<kX>(x, a.x, at.x);
    fetch<kT>(t, a.t, at.t);
    fetch<kW>(w, a.w, at.w);
    fetch<kP>(p, a.p, at.p);
    fetch<kG>(g, a.g, at.g);
    A x_of[kRun], t_of[kRun], w_of[kRun], p_of[kRun], g_of[kRun], value[kRun], dx[kRun], dt[kRun];
    widen<kX>(x, a.x, A(0), x_of);
    widen<kT>(t, a.t, A(0), t_of);
    widen<kW>(w, a.w, even.w, w_of);
    widen<kP>(p, a.p, even.p, p_of);
    widen<kG>(g, a.g, even.g, g_of);
    double sum = 0;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const PointwiseInputs<A> in{x_of[i], t_of[i], w_of[i], p_of[i], g_of[i]};
      const PointwiseResult<A> r = formulas::evaluate(f, in, formulas::prepared(f, in.x));
      value[i] = r.value;
      dx[i] = r.dx;
      dt[i] = r.dt;
      if constexpr (V::kLoss && (kOperands & kValue)) sum += static_cast<double>(value[i]);
    }
    put<kValue>(a.value, at.value, value);
    put<kDx>(a.dx, at.dx, dx);
    put<kDt>(a.dt, at.dt, dt);
    return sum;
  }

 private:
  const F& f;
  const PointwiseArguments& a;
  const Weights<A>& even;
  const int inner;

  template <unsigned kOperand>
  __device__ __forceinline__ void fetch(Values& to, const Elements& e, int64_t at) const {
    if constexpr (kOperands & kOperand) to.fetch(e, at, e.strides[inner]);
  }
  template <unsigned kOperand>
  __device__ __forceinline__ void widen(const Values& from, const Elements& e, A absent,
                                        A (&to)[kRun]) const {
    if constexpr (kOperands & kOperand) {
      from.widen(e, e.strides[inner], absent, to);
    } else {
#pragma unroll
      for (int i = 0; i < kRun; ++i) to[i] = absent;
    }
  }
  template <unsigned kOperand>
  __device__ __forceinline__ void put(const Elements& e, int64_t at, const A (&from)[kRun]) const {
    if constexpr (kOperands & kOperand) {
      if (e.data) Values::put(e, at, from);
    }
  }
};

template <class V>
__global__ void __launch_bounds__(kPointwiseThreads, 1)
    pointwise_kernel(const __grid_constant__ PointwiseTask task, const typename V::F f) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kPointwiseThreads + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kPointwiseThreads;
  const auto even = weights<V>(task);
  const PointwiseBody<V> runs(f, task.a, even);
  double sum = 0;
#pragma unroll 1
  for (int64_t run = thread; run < task.runs; run += threads) sum += runs.take(task.head + run * V::kRun);
  if constexpr (V::kRun > 1) {
    const PointwiseBody<typename V::OneByOne> ragged(f, task.a, even);
    const int64_t in_runs = task.runs * V::kRun;
#pragma unroll 1
    for (int64_t i = thread; i < task.a.numel - in_runs; i += threads)
      sum += ragged.take(i < task.head ? i : i + in_runs);
  }
  if constexpr (V::kLoss && (V::kOperands & kValue)) {
    if (!task.partials) return;
    sum = block_sum<kPointwiseThreads>(sum);
    if (threadIdx.x == 0) task.partials[blockIdx.x] = sum;
  }
}

}  // namespace fused_ml::cuda
