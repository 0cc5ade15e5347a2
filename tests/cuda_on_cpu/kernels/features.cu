// One kernel for each group of built-ins; tests/cuda/test_on_cpu.py compares them with NumPy.
#include "common.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

constexpr unsigned kAll = 0xffffffffu;

// out: [4, threads], one row per shuffle.
__global__ void shuffles(const float* in, float* out, int by, int width) {
  const int i = threadIdx.x, n = blockDim.x;
  out[i] = __shfl_sync(kAll, in[i], by, width);
  out[n + i] = __shfl_up_sync(kAll, in[i], by, width);
  out[2 * n + i] = __shfl_down_sync(kAll, in[i], by, width);
  out[3 * n + i] = __shfl_xor_sync(kAll, in[i], by, width);
}

// Each half of a warp meets on its own. out: [4, 32].
__global__ void votes(const int* in, unsigned* out) {
  const int i = threadIdx.x;
  const unsigned half = i < 16 ? 0x0000ffffu : 0xffff0000u;
  out[i] = __ballot_sync(half, in[i] > 0);
  out[32 + i] = __any_sync(half, in[i] > 5);
  out[64 + i] = __all_sync(half, in[i] > -5);
  out[96 + i] = __match_any_sync(half, in[i]);
}

// out: [6, 32].
__global__ void warp_reductions(const int* in, int* out) {
  const int i = threadIdx.x;
  const unsigned bits = static_cast<unsigned>(in[i]);
  out[i] = __reduce_add_sync(kAll, in[i]);
  out[32 + i] = __reduce_min_sync(kAll, in[i]);
  out[64 + i] = __reduce_max_sync(kAll, in[i]);
  out[96 + i] = static_cast<int>(__reduce_max_sync(kAll, bits));
  out[128 + i] = static_cast<int>(__reduce_and_sync(kAll, bits) + __reduce_xor_sync(kAll, bits));
  out[160 + i] = static_cast<int>(__reduce_or_sync(kAll, bits));
}

// Predicates counted over the block. out: [3, threads].
__global__ void block_votes(const int* in, int* out) {
  const int i = threadIdx.x, n = blockDim.x;
  out[i] = __syncthreads_count(in[i] > 0);
  out[n + i] = __syncthreads_or(in[i] > 5);
  out[2 * n + i] = __syncthreads_and(in[i] > -5);
}

__device__ float warp_sum(float value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

__device__ float block_sum(float value) {
  FUSED_ML_SHARED(float[32], sums);
  const int warps = blockDim.x / 32;
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  value = warp_sum(threadIdx.x % 32 < warps ? sums[threadIdx.x % 32] : 0.0f);
  __syncthreads();
  return value;
}

// The last block to finish adds up the others' sums: partial [blocks], done [1], out [1].
__global__ void sum_in_two_stages(const float* in, int count, float* partial, unsigned* done, float* out) {
  FUSED_ML_SHARED(bool, last);
  float mine = 0.0f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) mine += in[i];
  const float total = block_sum(mine);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = total;
    __threadfence();
    last = atomicAdd(done, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  float rest = 0.0f;
  for (int b = threadIdx.x; b < gridDim.x; b += blockDim.x) rest += partial[b];
  rest = block_sum(rest);
  if (threadIdx.x == 0) *out = rest;
}

// Reverses a row through dynamic shared memory.
template <class T>
__global__ void reverse_row(const T* in, T* out, int count) {
  FUSED_ML_DYNAMIC_SHARED(T, row);
  for (int i = threadIdx.x; i < count; i += blockDim.x) row[i] = in[i];
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = row[count - 1 - i];
}

// What a block finds in shared memory that nobody wrote. out: [blocks, 2].
__global__ void fresh_memory(float* out) {
  FUSED_ML_SHARED(float, fixed);
  FUSED_ML_DYNAMIC_SHARED(float, dynamic);
  out[2 * blockIdx.x] = fixed;
  out[2 * blockIdx.x + 1] = dynamic[0];
  __syncthreads();
  fixed = dynamic[0] = 1.0f;
}

// Every thread adds one to integers and to floats, and bids for the extremes. floats: [2], ints: [4].
__global__ void atomics(float* floats, double* total, int* ints, unsigned long long* wide) {
  const int id = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&floats[0], 1.0f);
  atomicExch(&floats[1], 3.0f);
  atomicAdd(total, 0.5);
  atomicAdd(&ints[0], 1);
  atomicMax(&ints[1], id);
  atomicMin(&ints[2], -id);
  atomicCAS(&ints[3], 0, 7);
  atomicAdd(wide, 1ull << 33);
}

struct Numbers {
  float factor;
  int offset;
};

// Where each thread is, in three dimensions.
__global__ void positions(int* out, const __grid_constant__ Numbers numbers, long long scale) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const int count = blockDim.x * blockDim.y * blockDim.z;
  const int id = block * count + thread;
  out[id] = static_cast<int>(id * numbers.factor) + numbers.offset + static_cast<int>(scale);
}

// y = a * x + y on eight 16-bit numbers at a time.
template <class T, class T2>
__global__ void half_vectors(const uint4* x, uint4* y, int vectors) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= vectors) return;
  uint4 a = __ldcs(x + i), b = y[i];
  T* const p = reinterpret_cast<T*>(&a);
  T* const q = reinterpret_cast<T*>(&b);
#pragma unroll
  for (int k = 0; k < 8; k++)
    q[k] = static_cast<T>(2.0f * static_cast<float>(p[k]) + static_cast<float>(q[k]));
  T2* const pairs = reinterpret_cast<T2*>(&b);
  for (int k = 0; k < 4; k++) pairs[k] = __hfma2(pairs[k], pairs[k], pairs[k]);
  __stcs(y + i, b);
}

// A thread's arithmetic. out: [12].
__global__ void scalars(float x, int n, float* out) {
  out[0] = __expf(x);
  out[1] = exp2f(x);
  out[2] = __frcp_rn(x);
  out[3] = rsqrtf(x);
  out[4] = __fmaf_rn(x, x, 1.0f);
  out[5] = __fdividef(1.0f, x);
  out[6] = max(x, nanf(""));
  out[7] = min(-1, 2u);
  out[8] = __uint_as_float(__float_as_uint(x));
  out[9] = __clz(n) + 100 * __popc(n) + 10000 * __ffs(n);
  out[10] = warpSize;
  out[11] = max(n, 3);
}

extern "C" {
int run_shuffles(int threads, const float* in, float* out, int by, int width) {
  return launch(1, threads, 0, shuffles, in, out, by, width);
}
int run_votes(const int* in, unsigned* out) { return launch(1, 32, 0, votes, in, out); }
int run_warp_reductions(const int* in, int* out) { return launch(1, 32, 0, warp_reductions, in, out); }
int run_block_votes(int threads, const int* in, int* out) {
  return launch(1, threads, 0, block_votes, in, out);
}
int run_sum(int blocks, int threads, const float* in, int count, float* partial, unsigned* done, float* out) {
  return launch(blocks, threads, 0, sum_in_two_stages, in, count, partial, done, out);
}
int run_reverse_row(const float* in, float* out, int count, int limit) {
  const cudaFuncAttribute attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  if (cudaFuncSetAttribute(reverse_row<float>, attribute, limit) != cudaSuccess) return -1;
  return launch(1, 64, count * sizeof(float), reverse_row<float>, in, out, count);
}
int run_fresh_memory(int blocks, float* out) { return launch(blocks, 32, 4, fresh_memory, out); }
int run_atomics(int blocks, int threads, float* floats, double* total, int* ints, unsigned long long* wide) {
  return launch(blocks, threads, 0, atomics, floats, total, ints, wide);
}
int run_positions(const unsigned* grid, const unsigned* threads, int* out) {
  const Numbers numbers{2.0f, 5};
  return launch({grid[0], grid[1], grid[2]}, {threads[0], threads[1], threads[2]}, 0, positions, out, numbers,
                1);
}
int run_half_vectors(int bfloat, const uint4* x, uint4* y, int vectors) {
  if (bfloat != 0) return launch(2, 32, 0, half_vectors<__nv_bfloat16, __nv_bfloat162>, x, y, vectors);
  return launch(2, 32, 0, half_vectors<__half, __half2>, x, y, vectors);
}
int run_scalars(float x, int n, float* out) { return launch(1, 1, 0, scalars, x, n, out); }
int last_error() { return cudaGetLastError(); }
int peek_error() { return cudaPeekAtLastError(); }
const char* error_name(int error) { return cudaGetErrorName(static_cast<cudaError_t>(error)); }
int multiprocessors() {
  int count = 0;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0);
  return count;
}
int blocks_per_multiprocessor(int threads, int dynamic_bytes) {
  int blocks = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reverse_row<float>, threads, dynamic_bytes);
  return blocks;
}
// Attributes 4 (a cluster of `size` blocks) and 6 (programmatic serialization).
int launch_in_cluster(unsigned size, int* out) {
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {size, 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = 2;
  config.blockDim = 1;
  config.attrs = attributes;
  config.numAttrs = 2;
  return cudaLaunchKernelEx(&config, positions, out, Numbers{1.0f, 0}, 0);
}
}
