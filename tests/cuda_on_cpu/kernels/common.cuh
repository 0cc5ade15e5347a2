// What the emulator's own test kernels share; the project's kernels have this in csrc/frames/cuda/launch.cuh.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#ifndef FUSED_ML_SHARED
template <class T>
using SharedType = T;
#define FUSED_ML_SHARED(type, name) __shared__ SharedType<type> name
#define FUSED_ML_DYNAMIC_SHARED(type, name)                  \
  extern __shared__ __align__(16) unsigned char name##Raw[]; \
  type* const name = reinterpret_cast<type*>(name##Raw)
#endif

template <class... Parameters, class... Arguments>
int launch(dim3 grid, dim3 threads, size_t dynamic_bytes, void (*kernel)(Parameters...),
           Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = dynamic_bytes;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}
