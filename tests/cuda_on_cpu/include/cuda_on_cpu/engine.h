// What code compiled from .cu files asks of the runtime. The runtime itself is compiled apart and never
// instrumented, so that sanitizers and the byte counter see the kernels alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

#include <cuda_runtime_api.h>

#pragma GCC visibility push(hidden)

// The built-in variables of the thread that is running; set at every switch of threads.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = 32;

namespace cuda_on_cpu {

using Where = std::source_location;

// One launch: `run(arguments)` is one thread's call of the kernel.
struct Work {
  const void* kernel;
  const void* arguments;
  void (*run)(const void* arguments);
};

cudaError_t launch(const cudaLaunchConfig_t& config, const Work& work);

// Prints the message, the place, block and thread, where all other threads of the block stand, and aborts.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(Where where, const char* format, ...);

// Waits until every thread of the block has come to the same place; the number of true predicates.
int meet_block(bool predicate, Where where);

enum class Exchange : uint8_t {
  sync,
  shuffle,
  ballot,
  match_any,
  add,
  min_signed,
  min_unsigned,
  max_signed,
  max_unsigned,
  bit_and,
  bit_or,
  bit_xor,
};

// Waits until every lane of the mask has come to the same place. `source` is the lane a shuffle reads.
// A lane that is not in the mask or not in the block gives all ones: a NaN in every floating-point type.
uint64_t meet_warp(Exchange exchange, unsigned mask, uint64_t value, int source, Where where);

// The calling thread's lane, 0 to 31.
int lane();

// One FUSED_ML_SHARED declaration; `block` tells whether the block that is running has its memory yet.
struct SharedObject {
  uint64_t block = 0;
  void* address = nullptr;
};

void* shared_memory(SharedObject& object, size_t bytes, size_t alignment, Where where);
void* dynamic_shared_memory(size_t alignment, Where where);
bool is_shared_memory(const void* address);  // of the block that is running

// Ordering as ThreadSanitizer must see it: what a thread wrote before a fence is visible to every thread
// that later does an atomic operation on an address which the first thread did one on after the fence.
void fence();
void atomic_ordering(const void* address);

cudaError_t set_function_attribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t occupancy(int* blocks, int threads, size_t dynamic_bytes);

}  // namespace cuda_on_cpu

#pragma GCC visibility pop
