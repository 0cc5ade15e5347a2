// The pointwise operators on CUDA: which formula, in which arithmetic, in which runs.
#include "pointwise.cuh"

#include <type_traits>

#include "../formulas/binary_cross_entropy.h"
#include "../formulas/logsigmoid.h"
#include "pointwise_split.h"

namespace fused_ml::cuda {

namespace {

// Whether value and gradient are never asked for together.
template <class F>
constexpr bool kActivation = false;
template <class A>
constexpr bool kActivation<formulas::LogSigmoid<A>> = true;

template <class V, class F>
int64_t start(const F& f, const PointwiseTask& task, cudaStream_t stream) {
  const auto kernel = pointwise_kernel<V, F>;
  const int64_t work = std::max(task.runs, task.a.numel - task.runs * V::kRun);
  const int64_t needed = std::max<int64_t>((work + kPointwiseThreads - 1) / kPointwiseThreads, 1);
  const int64_t blocks =
      std::min({needed, most_blocks(), static_cast<int64_t>(resident_blocks(kernel, kPointwiseThreads))});
  launch({"pointwise", static_cast<unsigned>(blocks), kPointwiseThreads, stream}, kernel, task, f);
  return blocks;
}

template <class A, int kRun, bool kMixed, bool kEven, class F>
int64_t choose_wanted(const F& f, const PointwiseTask& task, cudaStream_t stream) {
  const bool value = task.a.value.data || task.partials, gradient = task.a.dx.data || task.a.dt.data;
  if constexpr (!kActivation<F>) {
    if (value && gradient) return start<Variant<A, kRun, kMixed, kEven, Wanted::both>>(f, task, stream);
  }
  return gradient ? start<Variant<A, kRun, kMixed, kEven, Wanted::gradient>>(f, task, stream)
                  : start<Variant<A, kRun, kMixed, kEven, Wanted::value>>(f, task, stream);
}

template <class A, int kRun, bool kMixed, class F>
int64_t choose_weights(const F& f, const PointwiseTask& task, cudaStream_t stream) {
  if (is_even(task.a, task.a.w) && is_even(task.a, task.a.p) && is_even(task.a, task.a.g))
    return choose_wanted<A, kRun, kMixed, true>(f, task, stream);
  return choose_wanted<A, kRun, kMixed, false>(f, task, stream);
}

// As many elements as fill 16 bytes of the narrowest type: of A alone, or of float32 and 2-byte types.
template <class A, class F>
int64_t choose_run(const F& f, PointwiseTask task, cudaStream_t stream) {
  constexpr bool kDouble = std::is_same_v<A, double>;
  constexpr int kRun = kVectorBytes / sizeof(A), kMixedRun = 8;
  const bool mixed = !kDouble && !of_one_type(task.a, DType::float32);
  if (!split_into_runs(mixed ? kMixedRun : kRun, task))
    return choose_wanted<A, 1, !kDouble, false>(f, task, stream);
  if constexpr (kDouble) {
    return choose_wanted<A, kRun, false, false>(f, task, stream);
  } else {
    return mixed ? choose_weights<A, kMixedRun, true>(f, task, stream)
                 : choose_weights<A, kRun, false>(f, task, stream);
  }
}

template <class A>
int64_t choose_formula(PointwiseOp op, const PointwiseOptions& o, const PointwiseTask& task,
                       cudaStream_t stream) {
  switch (op) {
    case PointwiseOp::binary_cross_entropy:
      return choose_run<A>(formulas::BinaryCrossEntropy<A>{}, task, stream);
    case PointwiseOp::focal_binary_cross_entropy:
      return choose_run<A>(
          formulas::FocalBinaryCrossEntropy<A>{static_cast<A>(o.focal_gamma), static_cast<A>(o.focal_alpha),
                                               static_cast<A>(o.label_smoothing),
                                               static_cast<A>(o.ignore_index)},
          task, stream);
    case PointwiseOp::logsigmoid:
      return choose_run<A>(formulas::LogSigmoid<A>{}, task, stream);
  }
  return 0;
}

}  // namespace

int64_t launch_pointwise(PointwiseOp op, const PointwiseOptions& options, const PointwiseTask& task,
                         cudaStream_t stream) {
  return task.a.x.type == DType::float64 ? choose_formula<double>(op, options, task, stream)
                                         : choose_formula<float>(op, options, task, stream);
}

}  // namespace fused_ml::cuda
