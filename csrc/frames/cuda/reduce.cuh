// Sums in an order that is the same on every run: within a warp, a block, and over a grid in two launches.
//
// The grid's sum takes a second, tiny kernel and no ticket that the last block draws: a ticket has to be zero
// at every start, in memory that no other stream and no other replay of a graph touches, which costs a launch
// as well; and the second kernel reads what the first wrote without a fence.
#pragma once

#include "memory.cuh"

namespace fused_ml::cuda {

// In lane 0. All 32 lanes call it.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_down_sync(kAllLanes, value, offset);
  return value;
}

// In thread 0. All threads of the block call it: whole warps, kMostThreads at most.
template <int kMostThreads, class T>
__device__ __forceinline__ T block_sum(T value) {
  static_assert(kMostThreads % kWarp == 0);
  FUSED_ML_SHARED(T[kMostThreads / kWarp], warps);
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  T sum = 0;
  if (threadIdx.x == 0) {
    for (int w = 0; w < static_cast<int>(blockDim.x) / kWarp; ++w) sum += warps[w];
  }
  __syncthreads();  // before the next call writes
  return sum;
}

}  // namespace fused_ml::cuda
