// Loads and stores with a cache hint: plain accesses of the whole scalar or vector.
#pragma once

#include <cstdint>

#include "engine.h"
#include "warp.h"

namespace cuda_on_cpu {

// A GPU faults on an address that is not a multiple of the access's size; the report names the caller.
template <class T>
void check_aligned(const T* address, Where where) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0)
    fail(where, "misaligned address: an access of %zu bytes at %p", sizeof(T),
         static_cast<const void*>(address));
}

template <class T>
T load(const T* address, Where where) {
  check_aligned(address, where);
  return *address;
}

template <class T>
void store(T* address, T value, Where where) {
  check_aligned(address, where);
  *address = value;
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_LOAD(name)                 \
  template <class T>                           \
  T name(const T* address, CUDA_ON_CPU_HERE) { \
    return cuda_on_cpu::load(address, where);  \
  }
CUDA_ON_CPU_LOAD(__ldg)
CUDA_ON_CPU_LOAD(__ldca)
CUDA_ON_CPU_LOAD(__ldcg)
CUDA_ON_CPU_LOAD(__ldcs)
CUDA_ON_CPU_LOAD(__ldcv)
CUDA_ON_CPU_LOAD(__ldlu)
#undef CUDA_ON_CPU_LOAD

#define CUDA_ON_CPU_STORE(name)                                            \
  template <class T>                                                       \
  void name(T* address, std::type_identity_t<T> value, CUDA_ON_CPU_HERE) { \
    cuda_on_cpu::store(address, value, where);                             \
  }
CUDA_ON_CPU_STORE(__stwb)
CUDA_ON_CPU_STORE(__stcg)
CUDA_ON_CPU_STORE(__stcs)
CUDA_ON_CPU_STORE(__stwt)
#undef CUDA_ON_CPU_STORE

// All memory is the device's but shared memory. Locals are taken for it, too.
inline unsigned __isGlobal(const void* address) { return !cuda_on_cpu::is_shared_memory(address); }
inline unsigned __isShared(const void* address) { return cuda_on_cpu::is_shared_memory(address); }
