// How the operators start kernels, and the words for shared memory.
//
// The sources here also compile with a plain C++ compiler against the tests' emulation of a GPU
// (FUSED_ML_EMULATED), so kernels are started by launch() alone, shared memory is declared by the two macros
// alone, and nothing depends on __CUDA_ARCH__. Torch's headers stay out of the kernels' files: nvcc reads
// every header once for each architecture.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace fused_ml {

// Lets an array type stand before the name that it declares.
template <class T>
using Itself = T;

}  // namespace fused_ml

#ifndef FUSED_ML_SHARED
// An uninitialised object that the threads of a block share: FUSED_ML_SHARED(float[32], sums);
#define FUSED_ML_SHARED(type, name) __shared__::fused_ml::Itself<type> name
// A pointer to the launch's dynamic shared memory, 16-byte aligned: FUSED_ML_DYNAMIC_SHARED(float, row);
#define FUSED_ML_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char fused_ml_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(fused_ml_dynamic_shared)
#endif

namespace fused_ml::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Throw a torch error: device.cpp.
[[noreturn]] void launch_failed(const char* kernel, cudaError_t error);
[[noreturn]] void query_failed(cudaError_t error);

// torch's current stream on a device: device.cpp.
cudaStream_t current_stream(int device);

struct Launch {
  const char* kernel;  // its name in an error
  dim3 blocks, threads;
  cudaStream_t stream;
  size_t shared_bytes = 0;  // dynamic
};

// Starts a kernel on the current device; returns before it ends.
template <class... Parameters, class... Arguments>
void launch(const Launch& l, void (*kernel)(Parameters...), Arguments&&... arguments) {
  // More shared memory than 48 KiB must be asked for. No kernel here has more than 4 KiB that is static.
  constexpr size_t kUnasked = 44 << 10;
  cudaError_t error = cudaSuccess;
  if (l.shared_bytes > kUnasked) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(l.shared_bytes));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = l.blocks;
  config.blockDim = l.threads;
  config.dynamicSmemBytes = l.shared_bytes;
  config.stream = l.stream;
  if (error == cudaSuccess)
    error = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  if (error != cudaSuccess) launch_failed(l.kernel, error);
}

inline int device_attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&value, attribute, device);
  if (error != cudaSuccess) query_failed(error);
  return value;
}

// How many blocks of a kernel the current device holds at once: the grid of a loop that strides over its
// work.
template <class... Parameters>
int resident_blocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes = 0) {
  int device = 0, each = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared_bytes);
  if (error != cudaSuccess) query_failed(error);
  return std::max(each, 1) * device_attribute(cudaDevAttrMultiProcessorCount, device);
}

}  // namespace fused_ml::cuda
