// Deliberate bugs: what a kernel must not do, each chosen at run time by its number. 0 is no bug.
#include "common.cuh"

constexpr unsigned kAll = 0xffffffffu;

enum Bug {
  kNone,
  kMissingBarrier,
  kSharedOverrun,
  kDynamicOverrun,
  kGlobalOverrun,
  kWrongMask,
  kLaneNotInMask,
  kLaneExited,
  kPlainSum,
  kMissingFence,
  kEarlyReturn,
  kTwoBarriers,
  kWarpAtTwoPlaces,
  kMisalignedLoad,
  kMisalignedIntrinsic,
  kMisalignedShared,
  kTooMuchShared,
  kActiveMask,
  kFalseAssumption,
  kMissingWarpBarrier,
};

// Every thread reads what its neighbour in another warp wrote.
__global__ void exchange_in_block(float* out, int bug) {
  FUSED_ML_SHARED(float[64], values);
  FUSED_ML_DYNAMIC_SHARED(float, copies);
  const int i = threadIdx.x;
  values[i] = copies[i] = i;
  if (bug == kSharedOverrun && i == 63) values[i + 1] = 0.0f;
  if (bug == kDynamicOverrun && i == 63) copies[i + 1] = 0.0f;
  if (bug == kEarlyReturn && i >= 32) return;
  if (bug == kTwoBarriers && i >= 32) {
    __syncthreads();
    values[i] = 0.0f;
  }
  if (bug != kMissingBarrier) __syncthreads();
  out[bug == kGlobalOverrun ? i + 1 : i] = values[(i + 32) % 64] + copies[i];
}

__global__ void exchange_in_warp(float* out, int bug) {
  FUSED_ML_SHARED(float[32], values);
  const int i = threadIdx.x;
  if (bug == kLaneExited && i == 31) return;
  if (bug == kWarpAtTwoPlaces && i < 16) values[i] = __shfl_xor_sync(kAll, 1.0f, 1);
  unsigned mask = kAll;
  if (bug == kWrongMask && i == 3) mask = 0x0000ffffu;
  if (bug == kLaneNotInMask) mask = 0x7fffffffu;
  if (bug == kActiveMask) mask = __activemask();
  values[i] = __shfl_xor_sync(mask, static_cast<float>(i), 1);
  if (bug != kMissingWarpBarrier) __syncwarp();
  out[i] = values[31 - i];
}

// Sums the threads' numbers, one block after another.
__global__ void sum_of_blocks(float* out, float* partial, unsigned* done, int bug) {
  if (threadIdx.x != 0) return;
  if (bug == kPlainSum) *out += 1.0f;
  if (bug == kPlainSum) return;
  partial[blockIdx.x] = 1.0f;
  if (bug != kMissingFence) __threadfence();
  if (atomicAdd(done, 1) != gridDim.x - 1) return;
  for (int b = 0; b < gridDim.x; b++) *out += partial[b];
}

__global__ void sixteen_bytes(const float* in, float* out, int bug) {
  FUSED_ML_SHARED(float[8], row);
  const float* const from = bug == kNone ? in : in + 1;
  float4 four{};
  if (bug == kMisalignedShared) {
    for (int i = 0; i < 8; i++) row[i] = 0.0f;
    four = *reinterpret_cast<const float4*>(row);
  } else if (bug == kMisalignedIntrinsic) {
    four = __ldg(reinterpret_cast<const float4*>(from));
  } else {
    four = *reinterpret_cast<const float4*>(from);
  }
  *out = four.x + four.y + four.z + four.w;
}

__global__ void much_shared(float* out) {
  FUSED_ML_SHARED(float[12288], most);
  FUSED_ML_SHARED(float, more);
  most[0] = more = 0.0f;
  *out = most[0] + more;
}

__global__ void assume(float* out, int bug) {
  __builtin_assume(bug == kNone);
  *out = 0.0f;
}

int run(int bug, const float* in, float* out, float* partial, unsigned* done) {
  switch (bug) {
    case kMisalignedLoad:
    case kMisalignedIntrinsic:
    case kMisalignedShared:
      return launch(1, 1, 0, sixteen_bytes, in, out, bug);
    case kPlainSum:
    case kMissingFence:
      return launch(8, 32, 0, sum_of_blocks, out, partial, done, bug);
    case kWrongMask:
    case kLaneNotInMask:
    case kLaneExited:
    case kWarpAtTwoPlaces:
    case kActiveMask:
    case kMissingWarpBarrier:
      return launch(1, 32, 0, exchange_in_warp, out, bug);
    case kTooMuchShared:
      return launch(1, 1, 0, much_shared, out);
    case kFalseAssumption:
      return launch(1, 1, 0, assume, out, bug);
    default:
      return launch(1, 64, 64 * sizeof(float), exchange_in_block, out, bug);
  }
}

int run_without_bug(const float* in, float* out, float* partial, unsigned* done) {
  const int errors = launch(1, 1, 0, sixteen_bytes, in, out, kNone) +
                     launch(8, 32, 0, sum_of_blocks, out, partial, done, kNone) +
                     launch(1, 32, 0, exchange_in_warp, out, kNone) + launch(1, 1, 0, assume, out, kNone);
  return errors + run(kNone, in, out, partial, done);
}

// Buffers of exactly the size that the kernels may touch; gives 64 results, of exchange_in_block without a
// bug.
extern "C" int run_bug(int bug, float* results) {
  float *in, *out, *partial;
  unsigned* done;
  cudaMalloc(&in, 5 * sizeof(float));
  cudaMalloc(&out, 64 * sizeof(float));
  cudaMalloc(&partial, 8 * sizeof(float));
  cudaMalloc(&done, sizeof(unsigned));
  cudaMemsetAsync(done, 0, sizeof(unsigned), nullptr);
  cudaMemset(out, 0, 64 * sizeof(float));
  const int error = bug == kNone ? run_without_bug(in, out, partial, done) : run(bug, in, out, partial, done);
  cudaMemcpyAsync(results, out, 64 * sizeof(float), cudaMemcpyDeviceToHost, nullptr);
  for (void* memory : {static_cast<void*>(in), static_cast<void*>(out), static_cast<void*>(partial)})
    cudaFree(memory);
  cudaFree(done);
  return error;
}
