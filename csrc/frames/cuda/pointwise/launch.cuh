// Which variant of a pointwise formula's kernel a call needs, and its launch.
#pragma once

#include <type_traits>

#include "catalog/list.h"
#include "frame.cuh"
#include "split.h"

namespace fused_ml::cuda {

template <class V>
int64_t start(const typename V::F& f, const PointwiseTask& task, cudaStream_t stream) {
  const auto kernel = pointwise_kernel<V>;
  const int64_t work = std::max(task.runs, task.a.numel - task.runs * V::kRun);
  const int64_t needed = std::max<int64_t>((work + kPointwiseThreads - 1) / kPointwiseThreads, 1);
  const int64_t blocks =
      std::min({needed, most_blocks(), static_cast<int64_t>(resident_blocks(kernel, kPointwiseThreads))});
  launch({"pointwise", static_cast<unsigned>(blocks), kPointwiseThreads, stream}, kernel, task, f);
  return blocks;
}

// An activation's two results are never asked for together. A loss without gradient or uneven weights has a
// kernel of its own where it goes in runs; any other call computes all, and writes what has a place.
template <class F, class A, int kRun, bool kMixed>
int64_t choose_results(const F& f, const PointwiseTask& task, cudaStream_t stream) {
  const bool gradient = task.a.dx.data || task.a.dt.data;
  if constexpr (formulas::kActivation<F>) {
    return gradient ? start<Variant<F, A, kRun, kMixed, false, false, true>>(f, task, stream)
                    : start<Variant<F, A, kRun, kMixed, true, true, false>>(f, task, stream);
  } else {
    if constexpr (kRun > 1) {
      const bool even = is_even(task.a, task.a.w) && is_even(task.a, task.a.p) && is_even(task.a, task.a.g);
      if (even && !gradient) return start<Variant<F, A, kRun, kMixed, true, true, false>>(f, task, stream);
      if (even) return start<Variant<F, A, kRun, kMixed, true, true, true>>(f, task, stream);
    }
    return start<Variant<F, A, kRun, kMixed, false, true, true>>(f, task, stream);
  }
}

// As many elements as fill 16 bytes of the narrowest type: of float32 alone, or of float32 and 2-byte types.
template <class F, class A>
int64_t run_formula(const double* options, PointwiseTask task, cudaStream_t stream) {
  A numbers[kPointwiseOptions];
  for (int i = 0; i < kPointwiseOptions; ++i) numbers[i] = static_cast<A>(options[i]);
  const F f = formulas::with_options<F>(numbers);
  if constexpr (std::is_same_v<A, double>) {
    split_into_runs(1, task);
    return choose_results<F, A, 1, false>(f, task, stream);
  } else {
    const bool mixed = !of_one_type(task.a, DType::float32);
    if (!split_into_runs(mixed ? 8 : 4, task)) return choose_results<F, A, 1, true>(f, task, stream);
    return mixed ? choose_results<F, A, 8, true>(f, task, stream)
                 : choose_results<F, A, 4, false>(f, task, stream);
  }
}

template <class A, class... F>
int64_t run_in(formulas::List<F...>, int index, const double* options, const PointwiseTask& task,
               cudaStream_t stream) {
  using Runner = int64_t (*)(const double* options, PointwiseTask task, cudaStream_t stream);
  static constexpr Runner runners[] = {run_formula<F, A>...};
  return runners[index](options, task, stream);
}

// The formula at a place of one of the catalog's lists.
template <template <class> class Formulas>
int64_t run_any(int index, const double* options, const PointwiseTask& task, cudaStream_t stream) {
  return task.a.x.type == DType::float64 ? run_in<double>(Formulas<double>{}, index, options, task, stream)
                                         : run_in<float>(Formulas<float>{}, index, options, task, stream);
}

}  // namespace fused_ml::cuda
