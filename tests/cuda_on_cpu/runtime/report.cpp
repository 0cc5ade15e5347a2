// What is printed when a kernel does what it must not.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "block.h"

namespace cuda_on_cpu {
namespace {

constexpr int kLinesShown = 12;

bool stand_together(const Thread& a, const Thread& b) {
  if (a.state != b.state) return false;
  if (a.state == State::at_barrier) return same_place(a.where, b.where);
  if (a.state == State::at_warp) return a.mask == b.mask && same_place(a.where, b.where);
  return true;
}

void print_threads(int first, int last) {
  const Thread& thread = block.threads[first];
  std::fprintf(stderr, first == last ? "  thread %d" : "  threads %d to %d", first, last);
  if (thread.state == State::exited) std::fprintf(stderr, " exited\n");
  if (thread.state == State::ready) std::fprintf(stderr, " can run\n");
  if (thread.state == State::at_barrier)
    std::fprintf(stderr, " at the barrier in %s:%u\n", thread.where.file_name(), thread.where.line());
  if (thread.state == State::at_warp)
    std::fprintf(stderr, " at the warp operation in %s:%u, mask 0x%08x\n", thread.where.file_name(),
                 thread.where.line(), thread.mask);
}

void print_block() {
  const uint3 t = threadIdx, b = blockIdx;
  const dim3 n = blockDim, g = gridDim;
  std::fprintf(stderr, "  block (%u, %u, %u) of (%u, %u, %u), thread (%u, %u, %u) of (%u, %u, %u)\n", b.x,
               b.y, b.z, g.x, g.y, g.z, t.x, t.y, t.z, n.x, n.y, n.z);
  int lines = 0;
  for (int first = 0; first < block.count; lines++) {
    int last = first;
    while (last + 1 < block.count && stand_together(block.threads[first], block.threads[last + 1])) last++;
    if (lines < kLinesShown) print_threads(first, last);
    first = last + 1;
  }
  if (lines > kLinesShown) std::fprintf(stderr, "  and %d groups more\n", lines - kLinesShown);
}

[[noreturn]] void print_and_abort(const char* file, unsigned line, const char* function, const char* format,
                                  va_list arguments) {
  std::fflush(stdout);
  std::fprintf(stderr, "cuda_on_cpu: error: ");
  std::vfprintf(stderr, format, arguments);
  std::fprintf(stderr, "\n  at %s:%u%s%s\n", file, line, *function == '\0' ? "" : ", in ", function);
  if (block.running != nullptr) print_block();
  std::fflush(stderr);
  std::abort();
}

}  // namespace

void fail(Where where, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_and_abort(where.file_name(), where.line(), where.function_name(), format, arguments);
}

void fail_at(const char* file, unsigned line, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_and_abort(file, line, "", format, arguments);
}

}  // namespace cuda_on_cpu
