// The multi_tensor frame on CUDA: one formula over every parameter of a model, in one launch.
//
// The tensors lie on one axis, each rounded up to whole granules of 256 elements, as on the CPU. A block
// takes some granules in a row, as many as share the work evenly among the multiprocessors, whatever the
// tensors' sizes. Where all operands of a tensor reach 16-byte alignment at one element, threads take runs of
// 16 bytes from there, and the few elements before and after one by one; other tensors go one by one
// throughout, by their strides. The tensors are described in device memory (MultiTensorList), so there may be
// any number.
#pragma once

#include "frames/cuda/reduce.cuh"

namespace fused_ml::cuda {

constexpr int kTensorThreads = 256;
constexpr int64_t kGranule = kMultiTensorGranule;

// Calls visit(tensor, begin, end) for the block's share of each tensor, in elements rounded up to granules.
template <class Visit>
__device__ __forceinline__ void visit_tensors(const MultiTensorList& list, const Visit& visit) {
  int64_t granule = static_cast<int64_t>(blockIdx.x) * list.granules_of_block;
  const int64_t after = granule + list.granules_of_block;
  const int64_t last = after < list.granules ? after : list.granules;
  int64_t low = 0, high = list.count;  // the first tensor with end_granule > granule
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (list.tensors[middle].end_granule > granule) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  int64_t first = low ? list.tensors[low - 1].end_granule : 0;
  for (int64_t t = low; granule < last; ++t) {
    const MultiTensorTensor& tensor = list.tensors[t];
    const int64_t end = tensor.end_granule < last ? tensor.end_granule : last;
    if (end > granule) visit(tensor, (granule - first) * kGranule, (end - first) * kGranule);
    granule = end;
    first = tensor.end_granule;
  }
}

// Calls run(i) for the thread's aligned runs of kRun elements, by their first element, and one(i) for its
// other elements, of [begin, end) of a tensor that has aligned runs.
template <int kRun, class RunBody, class OneBody>
__device__ __forceinline__ void visit_runs(const MultiTensorTensor& tensor, int64_t begin, int64_t end,
                                           const RunBody& run, const OneBody& one) {
  const int64_t runs = (tensor.numel - tensor.head) / kRun;
  const int64_t last = end / kRun < runs ? end / kRun : runs;
#pragma unroll 1
  for (int64_t r = begin / kRun + threadIdx.x; r < last; r += kTensorThreads) run(tensor.head + r * kRun);
  if (begin > 0) return;
  const int64_t ragged = tensor.numel - runs * kRun;  // fewer than two runs
  const int64_t i = threadIdx.x;
  if (i < ragged) one(i < tensor.head ? i : i + runs * kRun);
}

// A pointer that was read from memory, and leads to the device's: else the compiler has to allow for others.
template <class T>
__device__ __forceinline__ T* on_device(void* pointer) {
  __builtin_assume(__isGlobal(pointer));
  return static_cast<T*>(pointer);
}

// Where element i of each operand lies: [kOperands].
template <int kOperands>
struct Offsets {
  int64_t at[kOperands];

  __device__ __forceinline__ Offsets(const MultiTensorList& list, const MultiTensorTensor& tensor,
                                     int64_t i) {
#pragma unroll
    for (int k = 0; k < kOperands; ++k) at[k] = tensor.layout ? 0 : i;
    if (!tensor.layout) return;
    const StridedLayout& layout = *reinterpret_cast<const StridedLayout*>(list.table + tensor.layout);
#pragma unroll 1
    for (int d = layout.dims - 1; d >= 0; --d) {
      const int64_t size = layout.sizes[d], rest = quotient(i, size), position = i - rest * size;
#pragma unroll
      for (int k = 0; k < kOperands; ++k) at[k] += position * layout.strides[k][d];
      i = rest;
    }
  }
};

// A tensor's operands, and the formula at some of its elements. T, S: parameter and gradient; states.
template <class F, class T, class S>
class Updated {
 public:
  using A = arithmetic_of<T>;
  static constexpr int kRun = Vector<T>::size;

  __device__ __forceinline__ Updated(const MultiTensorTensor& tensor, const MultiTensorConstants& constants)
      : f(constants_of(constants)),
        p(on_device<T>(tensor.operands[0])),
        g(on_device<const T>(tensor.operands[1])) {
#pragma unroll
    for (int k = 0; k < F::states; ++k) state[k] = on_device<S>(tensor.operands[2 + k]);
  }

  __device__ __forceinline__ void run(int64_t i) const {
    A x[kRun], y[kRun], v[F::states + 1][kRun];
    load_vectors<kRun, true>(p + i, x);
    load_vectors<kRun, true>(g + i, y);
#pragma unroll
    for (int k = 0; k < F::states; ++k) load_vectors<kRun, true>(state[k] + i, v[k]);
#pragma unroll
    for (int j = 0; j < kRun; ++j) {
      A numbers[kMaxStates] = {};
#pragma unroll
      for (int k = 0; k < F::states; ++k) numbers[k] = v[k][j];
      f(x[j], y[j], numbers[0], numbers[1], numbers[2]);
#pragma unroll
      for (int k = 0; k < F::states; ++k) v[k][j] = numbers[k];
    }
#pragma unroll
    for (int k = 0; k < F::states; ++k) store_vectors<kRun, true>(state[k] + i, v[k]);
    store_vectors<kRun, true>(p + i, x);
  }

  __device__ __forceinline__ void one(const Offsets<2 + F::states>& at) const {
    A x = widen(p[at.at[0]]), v[kMaxStates] = {};
#pragma unroll
    for (int k = 0; k < F::states; ++k) v[k] = widen(state[k][at.at[2 + k]]);
    f(x, widen(g[at.at[1]]), v[0], v[1], v[2]);
#pragma unroll
    for (int k = 0; k < F::states; ++k) state[k][at.at[2 + k]] = narrow<S>(v[k]);
    p[at.at[0]] = narrow<T>(x);
  }

 private:
  static constexpr int kMaxStates = kMultiTensorOperands - 2;

  // A formula is a plain struct of numbers.
  __device__ __forceinline__ static const F& constants_of(const MultiTensorConstants& constants) {
    static_assert(sizeof(F) <= kMultiTensorConstants * sizeof(A));
    if constexpr (sizeof(A) == 8) {
      return *reinterpret_cast<const F*>(constants.wide);
    } else {
      return *reinterpret_cast<const F*>(constants.narrow);
    }
  }

  const F f;
  T* const p;
  const T* const g;
  S* state[F::states + 1];
};

template <class F, class T, class S>
__global__ void __launch_bounds__(kTensorThreads, 1)
    update_kernel(const MultiTensorList list, const MultiTensorConstants* constants, const float* skipped) {
  if (skipped && *skipped != 0) return;
  visit_tensors(list, [&](const MultiTensorTensor& tensor, int64_t begin, int64_t end) {
    const Updated<F, T, S> updated(tensor, constants[tensor.set]);
    const auto one = [&](int64_t i) { updated.one({list, tensor, i}); };
    if (tensor.head >= 0) {
      visit_runs<Updated<F, T, S>::kRun>(tensor, begin, end, [&](int64_t i) { updated.run(i); }, one);
      return;
    }
    const int64_t last = end < tensor.numel ? end : tensor.numel;
#pragma unroll 1
    for (int64_t i = begin + threadIdx.x; i < last; i += kTensorThreads) one(i);
  });
}

// In float64: no overflow.
template <class T>
__global__ void __launch_bounds__(kTensorThreads)
    square_sum_kernel(const MultiTensorList list, double* partials) {
  double sum = 0;
  visit_tensors(list, [&](const MultiTensorTensor& tensor, int64_t begin, int64_t end) {
    const T* const g = on_device<const T>(tensor.operands[1]);
    const auto add = [&](double x) { sum += x * x; };
    const auto one = [&](int64_t i) { add(widen(g[Offsets<2>(list, tensor, i).at[1]])); };
    if (tensor.head >= 0) {
      constexpr int kRun = Vector<T>::size;
      const auto run = [&](int64_t i) {
        arithmetic_of<T> x[kRun];
        load_vectors<kRun, true>(g + i, x);
#pragma unroll
        for (int j = 0; j < kRun; ++j) add(x[j]);
      };
      visit_runs<kRun>(tensor, begin, end, run, one);
      return;
    }
    const int64_t last = end < tensor.numel ? end : tensor.numel;
#pragma unroll 1
    for (int64_t i = begin + threadIdx.x; i < last; i += kTensorThreads) one(i);
  });
  sum = block_sum<kTensorThreads>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

}  // namespace fused_ml::cuda
