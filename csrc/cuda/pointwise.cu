// The pointwise operators on CUDA: which formula, in which arithmetic, in which runs.
#include "pointwise.cuh"

#include <type_traits>

#include "../formulas/binary_cross_entropy.h"
#include "../formulas/logsigmoid.h"
#include "pointwise_split.h"

namespace fused_ml::cuda {

namespace {

template <class F, class A, int kRun, bool kMixed, Wanted kWanted>
int64_t start(const F& f, const PointwiseTask& task, cudaStream_t stream) {
  const auto kernel = pointwise_kernel<F, A, kRun, kMixed, kWanted>;
  const int64_t work = std::max(task.runs, task.a.numel - task.runs * kRun);
  const int64_t needed = std::max<int64_t>((work + kPointwiseThreads - 1) / kPointwiseThreads, 1);
  const int64_t blocks =
      std::min({needed, most_blocks(), static_cast<int64_t>(resident_blocks(kernel, kPointwiseThreads))});
  launch({"pointwise", static_cast<unsigned>(blocks), kPointwiseThreads, stream}, kernel, task, f);
  return blocks;
}

template <class F, class A, int kRun, bool kMixed>
int64_t choose_wanted(const F& f, const PointwiseTask& task, cudaStream_t stream) {
  const bool value = task.a.value.data || task.partials, gradient = task.a.dx.data || task.a.dt.data;
  if (!gradient) return start<F, A, kRun, kMixed, Wanted::value>(f, task, stream);
  if (!value) return start<F, A, kRun, kMixed, Wanted::gradient>(f, task, stream);
  return start<F, A, kRun, kMixed, Wanted::both>(f, task, stream);
}

// float32 alone, or float32 and 2-byte types together: as many elements as fill the narrowest's 16 bytes.
template <class F, class A>
int64_t choose_run(const F& f, PointwiseTask task, cudaStream_t stream) {
  constexpr bool kDouble = std::is_same_v<A, double>;
  constexpr int kRun = kVectorBytes / sizeof(A), kMixedRun = 8;
  const bool mixed = !kDouble && !of_one_type(task.a, DType::float32);
  if (!split_into_runs(mixed ? kMixedRun : kRun, task))
    return choose_wanted<F, A, 1, !kDouble>(f, task, stream);
  if constexpr (!kDouble) {
    if (mixed) return choose_wanted<F, A, kMixedRun, true>(f, task, stream);
  }
  return choose_wanted<F, A, kRun, false>(f, task, stream);
}

template <class A>
int64_t choose_formula(PointwiseOp op, const PointwiseOptions& o, const PointwiseTask& task,
                       cudaStream_t stream) {
  switch (op) {
    case PointwiseOp::binary_cross_entropy:
      return choose_run<formulas::BinaryCrossEntropy<A>, A>({}, task, stream);
    case PointwiseOp::focal_binary_cross_entropy:
      return choose_run<formulas::FocalBinaryCrossEntropy<A>, A>(
          {static_cast<A>(o.focal_gamma), static_cast<A>(o.focal_alpha), static_cast<A>(o.label_smoothing),
           static_cast<A>(o.ignore_index)},
          task, stream);
    case PointwiseOp::logsigmoid:
      return choose_run<formulas::LogSigmoid<A>, A>({}, task, stream);
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
