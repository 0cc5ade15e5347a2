// A tensor times a number that lies on the device: nothing is read or written where the number is 1.
#include "memory.cuh"

namespace fused_ml::cuda {

namespace {

constexpr int kScaleThreads = 256;

template <class T>
__global__ void __launch_bounds__(kScaleThreads) scale_kernel(T* data, int64_t numel, Number factor) {
  using A = arithmetic_of<T>;
  const double number = get_number(factor);
  if (number == 1) return;
  const A times = static_cast<A>(number);
  constexpr int kSize = Vector<T>::size;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kScaleThreads + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kScaleThreads;
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) / sizeof(T) % kSize);
  const int64_t to_boundary = (kSize - past) % kSize, head = to_boundary < numel ? to_boundary : numel;
  const int64_t runs = (numel - head) / kSize;
  for (int64_t run = thread; run < runs; run += threads) {
    A values[kSize];
    load_vectors<kSize>(data + head + run * kSize, values);
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[i] *= times;
    store_vectors(data + head + run * kSize, values);
  }
  for (int64_t i = thread; i < numel - runs * kSize; i += threads) {
    const int64_t at = i < head ? i : i + runs * kSize;
    data[at] = narrow<T>(widen(data[at]) * times);
  }
}

}  // namespace

void launch_scale(void* data, DType type, int64_t numel, const Number& factor, cudaStream_t stream) {
  if (numel == 0) return;
  with_element(type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const auto kernel = scale_kernel<T>;
    const int64_t needed = (numel / Vector<T>::size + kScaleThreads) / kScaleThreads;
    const int64_t blocks = std::min<int64_t>(needed, resident_blocks(kernel, kScaleThreads));
    launch({"scale", static_cast<unsigned>(blocks), kScaleThreads, stream}, kernel, static_cast<T*>(data),
           numel, factor);
  });
}

}  // namespace fused_ml::cuda
