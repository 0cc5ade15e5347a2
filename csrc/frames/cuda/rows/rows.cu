// The rowwise operators on CUDA: which formula, in which arithmetic, in how many launches.
#include "formulas/rows/softmax.h"
#include "own_class.cuh"

namespace fused_ml::cuda {

namespace {

template <class F, class A>
void start(const F& f, RowwiseTask task, cudaStream_t stream) {
  const Tiling& t = task.t;
  const int64_t tiles = tiles_of_rows(t, task.a);
  const unsigned threads = static_cast<unsigned>(t.rows * t.lanes);
  const size_t shared = sizeof(A) * static_cast<size_t>(Tile<A>::elements(t)) * (F::kTwoInputs ? 2 : 1);
  if (t.chunks == 1)
    return launch({"rowwise", static_cast<unsigned>(tiles), threads, stream, shared}, rowwise_kernel<F, A>,
                  task, f);
  // As many rows at a time as the second-level cache holds: the second kernel reads them there.
  const int64_t row_bytes = task.a.classes * bytes_of(task.a.type) * (F::kTwoInputs ? 2 : 1);
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) query_failed(error);
  const int64_t cached = device_attribute(cudaDevAttrL2CacheSize, device) / 2;
  const int64_t batch = std::max<int64_t>(cached / (row_bytes * t.rows), 1);
  const bool outputs = task.a.out.data || task.a.out2.data;
  for (; task.first_tile < tiles; task.first_tile += batch) {
    const int64_t here = std::min(batch, tiles - task.first_tile);
    const unsigned blocks = static_cast<unsigned>(here * t.chunks);
    launch({"rowwise_reduce", blocks, threads, stream, shared}, rowwise_reduce_kernel<F, A>, task, f);
    launch({"rowwise_map", outputs ? blocks : static_cast<unsigned>(here), threads, stream, shared},
           rowwise_map_kernel<F, A>, task, f, outputs);
  }
}

template <class A>
void start_own_class(bool backward, const RowwiseTask& task, cudaStream_t stream) {
  const unsigned blocks = static_cast<unsigned>(tiles_of_rows(task.t, task.a));
  const unsigned threads = static_cast<unsigned>(task.t.rows);
  launch({"own_class", blocks, threads, stream},
         backward ? own_class_backward_kernel<A> : own_class_kernel<A>, task);
}

template <class A>
void choose_formula(RowwiseOp op, const RowwiseOptions& options, const RowwiseTask& task,
                    cudaStream_t stream) {
  const A sign = static_cast<A>(options.sign);
  const CrossEntropyOptions<A> o{
      static_cast<A>(options.label_smoothing),
      static_cast<A>(options.label_smoothing / static_cast<double>(task.a.classes)),
      static_cast<A>(options.z_loss), static_cast<A>(options.softcap)};
  switch (op) {
    case RowwiseOp::cross_entropy_plain:
      return start<CrossEntropyPlain<A>, A>({o}, task, stream);
    case RowwiseOp::cross_entropy_class:
      return start<CrossEntropyClass<A>, A>({o}, task, stream);
    case RowwiseOp::cross_entropy_distribution:
      return start<CrossEntropyDistribution<A>, A>({{o}}, task, stream);
    case RowwiseOp::softmax:
      return start<Softmax<A>, A>({sign}, task, stream);
    case RowwiseOp::log_softmax:
      return start<LogSoftmax<A>, A>({}, task, stream);
    case RowwiseOp::softmax_backward:
      return start<SoftmaxBackward<A>, A>({sign}, task, stream);
    case RowwiseOp::log_softmax_backward:
      return start<LogSoftmaxBackward<A>, A>({{sign}}, task, stream);
    case RowwiseOp::own_class:
    case RowwiseOp::own_class_backward:
      return start_own_class<A>(op == RowwiseOp::own_class_backward, task, stream);
  }
}

}  // namespace

void launch_rowwise(RowwiseOp op, const RowwiseOptions& options, const RowwiseTask& task,
                    cudaStream_t stream) {
  if (task.a.rows == 0 || task.a.classes == 0) return;
  task.a.type == DType::float64 ? choose_formula<double>(op, options, task, stream)
                                : choose_formula<float>(op, options, task, stream);
}

void launch_weights(const RowwiseTask& task, bool count_class_weights, cudaStream_t stream) {
  const unsigned blocks = static_cast<unsigned>(tiles_of_rows(task.t, task.a));
  if (blocks == 0) return;
  const auto kernel = task.a.type == DType::float64 ? weights_kernel<double> : weights_kernel<float>;
  launch({"weights", blocks, static_cast<unsigned>(task.t.rows), stream}, kernel, task, count_class_weights);
}

}  // namespace fused_ml::cuda
