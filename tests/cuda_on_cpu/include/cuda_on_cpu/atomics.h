// Atomic operations, relaxed as CUDA's are, for the types that CUDA has them for.
#pragma once

#include <concepts>
#include <type_traits>

#include "engine.h"

namespace cuda_on_cpu {

template <class T, class... Types>
concept OneOf = (std::same_as<T, Types> || ...);

using Long = long long;
using Unsigned64 = unsigned long long;

// Keeps an argument out of template deduction, so that `atomicAdd(&counter, 1)` converts the 1.
template <class T>
using Value = std::type_identity_t<T>;

template <class T, class Change>
T update(T* address, Change change) {
  T old;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  T next = change(old);
  while (!__atomic_compare_exchange(address, &old, &next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    next = change(old);
  atomic_ordering(address);
  return old;
}

}  // namespace cuda_on_cpu

template <cuda_on_cpu::OneOf<int, unsigned, cuda_on_cpu::Unsigned64, float, double> T>
T atomicAdd(T* address, cuda_on_cpu::Value<T> value) {
  return cuda_on_cpu::update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <cuda_on_cpu::OneOf<int, unsigned> T>
T atomicSub(T* address, cuda_on_cpu::Value<T> value) {
  return cuda_on_cpu::update(address, [=](T old) { return static_cast<T>(old - value); });
}
template <cuda_on_cpu::OneOf<int, unsigned, cuda_on_cpu::Long, cuda_on_cpu::Unsigned64> T>
T atomicMax(T* address, cuda_on_cpu::Value<T> value) {
  return cuda_on_cpu::update(address, [=](T old) { return old > value ? old : value; });
}
template <cuda_on_cpu::OneOf<int, unsigned, cuda_on_cpu::Long, cuda_on_cpu::Unsigned64> T>
T atomicMin(T* address, cuda_on_cpu::Value<T> value) {
  return cuda_on_cpu::update(address, [=](T old) { return old < value ? old : value; });
}
template <cuda_on_cpu::OneOf<int, unsigned, cuda_on_cpu::Unsigned64> T>
T atomicAnd(T* address, cuda_on_cpu::Value<T> value) {
  return cuda_on_cpu::update(address, [=](T old) { return old & value; });
}
template <cuda_on_cpu::OneOf<int, unsigned, cuda_on_cpu::Unsigned64> T>
T atomicOr(T* address, cuda_on_cpu::Value<T> value) {
  return cuda_on_cpu::update(address, [=](T old) { return old | value; });
}
template <cuda_on_cpu::OneOf<int, unsigned, cuda_on_cpu::Unsigned64> T>
T atomicXor(T* address, cuda_on_cpu::Value<T> value) {
  return cuda_on_cpu::update(address, [=](T old) { return old ^ value; });
}
template <cuda_on_cpu::OneOf<int, unsigned, cuda_on_cpu::Unsigned64, float> T>
T atomicExch(T* address, cuda_on_cpu::Value<T> value) {
  return cuda_on_cpu::update(address, [=](T) { return value; });
}
template <cuda_on_cpu::OneOf<unsigned short, int, unsigned, cuda_on_cpu::Unsigned64> T>
T atomicCAS(T* address, cuda_on_cpu::Value<T> expected, cuda_on_cpu::Value<T> value) {
  return cuda_on_cpu::update(address, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return cuda_on_cpu::update(address, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}
inline unsigned atomicDec(unsigned* address, unsigned limit) {
  return cuda_on_cpu::update(address,
                             [=](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}

inline void __threadfence() { cuda_on_cpu::fence(); }
inline void __threadfence_block() { cuda_on_cpu::fence(); }
inline void __threadfence_system() { cuda_on_cpu::fence(); }
