// A stack and a place to go on from.
#pragma once

#include <cstddef>

// Elsewhere, and on request, the C library's much slower switch.
#if defined(__x86_64__) && !defined(CUDA_ON_CPU_UCONTEXT)
#define CUDA_ON_CPU_OWN_SWITCH
#else
#include <ucontext.h>
#endif

namespace cuda_on_cpu {

class Fiber {
 public:
  // The stack that the calling OS thread is on: somewhere to return to.
  Fiber() = default;
  // A new stack, on which `body` starts at the first switch; it must not return. `index` spreads the stacks'
  // tops over the cache's sets.
  Fiber(void (*body)(), int index);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Goes on in `next`; returns when something switches back to this fiber.
  void switch_to(Fiber& next);

  // Whether the address is on this fiber's stack.
  bool contains(const void* address) const {
    const char* const bottom = static_cast<const char*>(bottom_);
    return address >= bottom && address < bottom + size_;
  }

 private:
  static void start();

  void (*body_)() = nullptr;
  void* mapping_ = nullptr;
  const void* bottom_ = nullptr;
  size_t size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
#if defined(CUDA_ON_CPU_OWN_SWITCH)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
};

}  // namespace cuda_on_cpu
