// Shared memory of the block that is running, and memory ordering as ThreadSanitizer must see it.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "block.h"
#include "sanitizers.h"

namespace cuda_on_cpu {
namespace {

// All ones is a NaN in every floating-point type.
constexpr int kFill = 0xff;
constexpr size_t kBorder = 128;

struct Allocation {
  char* memory;
  size_t bytes;
};

std::vector<Allocation> allocations;
void* dynamic_memory;

// Memory of its own with borders on both sides, aligned to `alignment` and to no more: a wider access that a
// GPU need not allow is misaligned here.
char* allocate(size_t bytes, size_t alignment) {
  const TsanIgnore ignore;
  const size_t lead = kBorder + alignment;
  const size_t total = (lead + bytes + kBorder) / kBorder * kBorder;
  char* const memory = static_cast<char*>(std::aligned_alloc(kBorder, total));
  if (memory == nullptr) fail(Where::current(), "no memory for %zu bytes of shared memory", bytes);
  allocations.push_back({memory, total});
  std::memset(memory + lead, kFill, bytes);
  asan_poison(memory, lead);
  asan_poison(memory + lead + bytes, total - lead - bytes);
  return memory + lead;
}

// A limit that was raised counts in full beside the static memory, as cudaFuncSetAttribute would have it.
void check_total(Where where) {
  const size_t raised = dynamic_limit(block.work->kernel);
  const bool is_raised = raised > kDefaultSharedBytes;
  const size_t dynamic = is_raised ? raised : block.dynamic_bytes;
  const size_t limit =
      is_raised ? device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) : kDefaultSharedBytes;
  if (block.static_bytes + dynamic > limit)
    fail(where, "%zu bytes of static and %zu of dynamic shared memory; the limit for both is %zu",
         block.static_bytes, dynamic, limit);
}

}  // namespace

void begin_shared_memory() {
  block.static_bytes = 0;
  dynamic_memory = block.dynamic_bytes > 0 ? allocate(block.dynamic_bytes, 16) : nullptr;
}

void end_shared_memory() {
  const TsanIgnore ignore;
  for (const Allocation& allocation : allocations) std::free(allocation.memory);
  allocations.clear();
}

bool is_shared_memory(const void* address) {
  const auto holds = [address](const Allocation& a) {
    return address >= a.memory && address < a.memory + a.bytes;
  };
  return std::any_of(allocations.begin(), allocations.end(), holds);
}

void* shared_memory(SharedObject& object, size_t bytes, size_t alignment, Where where) {
  if (object.block == block.serial) return object.address;
  block.static_bytes += bytes;
  if (block.static_bytes > kDefaultSharedBytes)
    fail(where, "%zu bytes of static shared memory; the limit is %zu", block.static_bytes,
         kDefaultSharedBytes);
  check_total(where);
  object.block = block.serial;
  object.address = allocate(bytes, alignment);
  return object.address;
}

void* dynamic_shared_memory(size_t alignment, Where where) {
  if (alignment > 16) fail(where, "dynamic shared memory is aligned to 16 bytes, not to %zu", alignment);
  return dynamic_memory;
}

void fence() { block.running->fenced = true; }

// Readers of a counter that tells them to be last acquire what was written before the fences of those who
// counted, as CUDA's own examples rely on.
void atomic_ordering(const void* address) {
  if (block.running == nullptr) return;
  if (block.running->fenced) tsan_release(address);
  tsan_acquire(address);
}

}  // namespace cuda_on_cpu
