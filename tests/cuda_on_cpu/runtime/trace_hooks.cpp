// The functions that -fsanitize=thread makes the compiler call, without ThreadSanitizer: accesses are
// counted, atomic operations are done. The trace build links these in the sanitizer's place.
#if defined(CUDA_ON_CPU_TRACE)
#include <cstddef>
#include <cstdint>

#include "trace.h"

using cuda_on_cpu::trace_access;

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_read_range(void* address, size_t bytes) { trace_access(address, bytes, false); }
void __tsan_write_range(void* address, size_t bytes) { trace_access(address, bytes, true); }

#define ACCESS(prefix, bytes)                                                               \
  void __tsan_##prefix##read##bytes(void* address) { trace_access(address, bytes, false); } \
  void __tsan_##prefix##write##bytes(void* address) { trace_access(address, bytes, true); }
#define ACCESSES(prefix) \
  ACCESS(prefix, 1) ACCESS(prefix, 2) ACCESS(prefix, 4) ACCESS(prefix, 8) ACCESS(prefix, 16)
ACCESSES()
ACCESSES(unaligned_)
ACCESSES(volatile_)
ACCESSES(unaligned_volatile_)

void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

// The order asked for is never stronger than sequential consistency. A kernel's atomic operation is an
// exchange (see atomics.h) and counts as one read and one write; the load that comes before it does not
// count.
#define CHANGE(bits, type, name, operation)                                    \
  type __tsan_atomic##bits##_##name(volatile type* address, type value, int) { \
    count_change(address, sizeof(type));                                       \
    return operation(address, value, __ATOMIC_SEQ_CST);                        \
  }
#define COMPARE(bits, type, strength, weak)                                                                 \
  int __tsan_atomic##bits##_compare_exchange_##strength(volatile type* address, type* expected, type value, \
                                                        int, int) {                                         \
    count_change(address, sizeof(type));                                                                    \
    return __atomic_compare_exchange_n(address, expected, value, weak, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }
#define ATOMICS(bits, type)                                                   \
  type __tsan_atomic##bits##_load(const volatile type* address, int) {        \
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);                        \
  }                                                                           \
  void __tsan_atomic##bits##_store(volatile type* address, type value, int) { \
    trace_access(const_cast<type*>(address), sizeof(type), true);             \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                       \
  }                                                                           \
  CHANGE(bits, type, exchange, __atomic_exchange_n)                           \
  CHANGE(bits, type, fetch_add, __atomic_fetch_add)                           \
  CHANGE(bits, type, fetch_sub, __atomic_fetch_sub)                           \
  CHANGE(bits, type, fetch_and, __atomic_fetch_and)                           \
  CHANGE(bits, type, fetch_or, __atomic_fetch_or)                             \
  CHANGE(bits, type, fetch_xor, __atomic_fetch_xor)                           \
  CHANGE(bits, type, fetch_nand, __atomic_fetch_nand)                         \
  COMPARE(bits, type, strong, false)                                          \
  COMPARE(bits, type, weak, true)

static void count_change(volatile void* address, size_t bytes) {
  trace_access(const_cast<void*>(address), bytes, false);
  trace_access(const_cast<void*>(address), bytes, true);
}

ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)
}
#endif
