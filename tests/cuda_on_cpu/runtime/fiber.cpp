#include "fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#include "sanitizers.h"

namespace cuda_on_cpu {
namespace {

constexpr size_t kGuardBytes = 4096;
#if defined(CUDA_ON_CPU_ADDRESS) || defined(CUDA_ON_CPU_THREAD)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 128 << 10;
#endif

// One launch runs at a time, so one pair serves all.
Fiber* switching_from;
Fiber* switching_to;

}  // namespace

#if defined(CUDA_ON_CPU_OWN_SWITCH)
// Saves what the ABI lets a function expect to find unchanged. The control words of the floating-point units
// are not among what is switched: all threads of a launch run in the mode of the thread that launched it.
extern "C" void cuda_on_cpu_switch_stack(void** save, void* resume);
asm(R"(
.text
.p2align 4
.globl cuda_on_cpu_switch_stack
.hidden cuda_on_cpu_switch_stack
.type cuda_on_cpu_switch_stack, @function
cuda_on_cpu_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch_stack, .-cuda_on_cpu_switch_stack
)");
#endif

Fiber::Fiber(void (*body)(), int index) : body_(body), size_(kStackBytes) {
  mapping_ = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED || mprotect(mapping_, kGuardBytes, PROT_NONE) != 0) {
    perror("cuda_on_cpu: no memory for a thread's stack");
    abort();
  }
  char* const bottom = static_cast<char*>(mapping_) + kGuardBytes;
  bottom_ = bottom;
  const size_t usable = kStackBytes - index % 8 * 512;
#if defined(CUDA_ON_CPU_OWN_SWITCH)
  // As a call would leave it: a return address (none, where stack walkers end) just below a multiple of 16.
  void** top = reinterpret_cast<void**>(bottom + usable);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::start);
  stack_pointer_ = top - 6;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = bottom;
  context_.uc_stack.ss_size = usable;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::start, 0);
#endif
}

Fiber::~Fiber() {
  if (mapping_ != nullptr) munmap(mapping_, kGuardBytes + kStackBytes);
}

void Fiber::start() {
  Fiber& from = *switching_from;
  asan_finish_switch(nullptr, &from.bottom_, &from.size_);
  switching_to->body_();
  abort();
}

void Fiber::switch_to(Fiber& next) {
  switching_from = this;
  switching_to = &next;
  asan_start_switch(&fake_stack_, next.bottom_, next.size_);
#if defined(CUDA_ON_CPU_OWN_SWITCH)
  cuda_on_cpu_switch_stack(&stack_pointer_, next.stack_pointer_);
#else
  swapcontext(&context_, &next.context_);
#endif
  // What is known of the stack that control came from: the launcher's bounds are learnt here.
  Fiber& from = *switching_from;
  asan_finish_switch(fake_stack_, &from.bottom_, &from.size_);
}

}  // namespace cuda_on_cpu
