// The second launch of a sum over a grid.
#include "reduce.cuh"

namespace fused_ml::cuda {

namespace {

constexpr int kSumThreads = 256;

__global__ void __launch_bounds__(kSumThreads) total_kernel(const Total t) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < t.count; i += kSumThreads) sum += t.partials[i];
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x != 0) return;
  const double denominator = t.device_denominator.data ? get_number(t.device_denominator) : t.denominator;
  put_number(t.out, t.type, sum / denominator);
}

}  // namespace

int64_t most_blocks() {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) query_failed(error);
  constexpr int64_t kThreadsAtOnce = 2048;  // the most that a multiprocessor of any architecture holds
  return device_attribute(cudaDevAttrMultiProcessorCount, device) * (kThreadsAtOnce / kSumThreads);
}

void launch_total(const Total& total, cudaStream_t stream) {
  launch({"total", 1, kSumThreads, stream}, total_kernel, total);
}

}  // namespace fused_ml::cuda
