// What the runtime tells AddressSanitizer and ThreadSanitizer; nothing in other builds. The runtime's own
// files are not instrumented: build.py defines CUDA_ON_CPU_ADDRESS or CUDA_ON_CPU_THREAD for them.
#pragma once

#include <cstddef>

#if defined(CUDA_ON_CPU_ADDRESS)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(CUDA_ON_CPU_THREAD)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace cuda_on_cpu {

#if defined(CUDA_ON_CPU_THREAD)
inline constexpr bool kThreadSanitizer = true;

inline void* tsan_current() { return __tsan_get_current_fiber(); }
inline void* tsan_create() { return __tsan_create_fiber(0); }
inline void tsan_destroy(void* fiber) { __tsan_destroy_fiber(fiber); }
inline void tsan_switch(void* fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }
inline void tsan_acquire(const void* token) { __tsan_acquire(const_cast<void*>(token)); }
inline void tsan_release(const void* token) { __tsan_release(const_cast<void*>(token)); }

// While one lives, the allocator's accesses are not taken for the running CUDA thread's.
struct TsanIgnore {
  TsanIgnore() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~TsanIgnore() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};
#else
inline constexpr bool kThreadSanitizer = false;

inline void* tsan_current() { return nullptr; }
inline void* tsan_create() { return nullptr; }
inline void tsan_destroy(void*) {}
inline void tsan_switch(void*) {}
inline void tsan_acquire(const void*) {}
inline void tsan_release(const void*) {}
struct TsanIgnore {
  TsanIgnore() {}
};
#endif

#if defined(CUDA_ON_CPU_ADDRESS)
inline void asan_poison(const void* begin, size_t bytes) { __asan_poison_memory_region(begin, bytes); }
inline void asan_start_switch(void** fake, const void* bottom, size_t size) {
  __sanitizer_start_switch_fiber(fake, bottom, size);
}
inline void asan_finish_switch(void* fake, const void** old_bottom, size_t* old_size) {
  __sanitizer_finish_switch_fiber(fake, old_bottom, old_size);
}
#else
inline void asan_poison(const void*, size_t) {}
inline void asan_start_switch(void**, const void*, size_t) {}
inline void asan_finish_switch(void*, const void**, size_t*) {}
#endif

}  // namespace cuda_on_cpu
