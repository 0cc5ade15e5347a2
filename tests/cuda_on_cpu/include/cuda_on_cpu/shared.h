// Shared memory. A macro, because no type can tell g++ to give a local variable to the whole block.
#pragma once

#include <type_traits>

#include "engine.h"

namespace cuda_on_cpu {

// `Tag` is a lambda's type: one per declaration, and one per instantiation of a template around it.
template <class T, class Tag>
T& shared_object(Tag, Where where = Where::current()) {
  static constinit SharedObject object;
  return *static_cast<T*>(shared_memory(object, sizeof(T), alignof(T), where));
}

}  // namespace cuda_on_cpu

// FUSED_ML_SHARED(float[32], sums); is nvcc's `__shared__ float sums[32];`.
#define FUSED_ML_SHARED(type, name) \
  auto& name = ::cuda_on_cpu::shared_object<std::type_identity_t<type>>([] {})

// FUSED_ML_DYNAMIC_SHARED(float, row); is a pointer to the launch's dynamic shared memory.
#define FUSED_ML_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(    \
      ::cuda_on_cpu::dynamic_shared_memory(alignof(type), std::source_location::current()))
