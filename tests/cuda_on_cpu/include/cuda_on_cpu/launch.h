// The templates of the toolkit's cuda_runtime.h: launches and calls that take a kernel or a typed pointer.
#pragma once

#include <type_traits>
#include <utility>

#include "engine.h"

// As in CUDA, the arguments are converted to the parameters' types once, and every thread gets its own copy.
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert(!(std::is_reference_v<Parameters> || ...), "a kernel's parameters are passed by value");
  static_assert((std::is_trivially_copyable_v<Parameters> && ...),
                "a kernel's parameters are copied bytewise");
  return [&](Parameters... converted) {
    const auto call = [&] { kernel(converted...); };
    using Call = decltype(call);
    const auto run = [](const void* packed) { (*static_cast<Call*>(packed))(); };
    return cuda_on_cpu::launch(*config, {reinterpret_cast<const void*>(kernel), &call, run});
  }(std::forward<Arguments>(arguments)...);
}

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute, int value) {
  return cuda_on_cpu::set_function_attribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

template <class... Parameters>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(Parameters...), int threads,
                                                          size_t dynamic_bytes) {
  return cuda_on_cpu::occupancy(blocks, threads, dynamic_bytes);
}

template <class T>
cudaError_t cudaMalloc(T** memory, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}

template <class T>
cudaError_t cudaMallocAsync(T** memory, size_t bytes, cudaStream_t stream) {
  return cudaMallocAsync(reinterpret_cast<void**>(memory), bytes, stream);
}

// Launches never overlap, so a launch's predecessor has always finished.
inline void cudaGridDependencySynchronize() {}
inline void cudaTriggerProgrammaticLaunchCompletion() {}
