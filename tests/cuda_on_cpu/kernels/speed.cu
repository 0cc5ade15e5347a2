// What the emulator's own work costs: kernels that do next to nothing else.
#include "common.cuh"

__global__ void start_threads(int* out) {
  if (threadIdx.x == 0 && blockIdx.x == 0) *out = 1;
}

__global__ void shuffle_often(int* out, int times) {
  int value = threadIdx.x;
  for (int i = 0; i < times; i++) value = __shfl_xor_sync(0xffffffffu, value, 1 + i % 31);
  if (threadIdx.x == 0) *out = value;
}

__global__ void synchronise_often(int* out, int times) {
  for (int i = 0; i < times; i++) __syncthreads();
  if (threadIdx.x == 0) *out = times;
}

extern "C" int run_start_threads(int blocks, int threads, int* out) {
  return launch(blocks, threads, 0, start_threads, out);
}
extern "C" int run_shuffle_often(int blocks, int threads, int* out, int times) {
  return launch(blocks, threads, 0, shuffle_often, out, times);
}
extern "C" int run_synchronise_often(int blocks, int threads, int* out, int times) {
  return launch(blocks, threads, 0, synchronise_often, out, times);
}
