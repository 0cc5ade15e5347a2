#if defined(CUDA_ON_CPU_TRACE)
#include "trace.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cxxabi.h>
#include <dlfcn.h>
#include <iterator>
#include <map>
#include <memory>
#include <pthread.h>
#include <string>
#include <vector>

#include "block.h"

// The bounds of this library in memory, from the linker.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start;
extern "C" __attribute__((visibility("hidden"))) const char _end;

namespace cuda_on_cpu {
namespace {

using Traffic = cuda_on_cpu_traffic;

struct Interval {
  const char* begin;
  const char* end;
  bool contains(const void* address) const { return address >= begin && address < end; }
};

struct Range {
  std::string name;
  Interval bytes;
  std::vector<bool> read, written;  // by byte, in this launch
};

struct Launch {
  std::string kernel;
  std::vector<Traffic> traffic;  // of the ranges known when it began, then of all other global memory
};

std::vector<Range> ranges;
std::map<const char*, size_t> ranges_by_begin;
std::vector<Launch> launches;

// The launching OS thread's stack: the kernel's parameters lie there.
Interval launcher_stack;

Interval own_stack() {
  pthread_attr_t attributes;
  void* bottom = nullptr;
  size_t size = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &size);
  pthread_attr_destroy(&attributes);
  return {static_cast<char*>(bottom), static_cast<char*>(bottom) + size};
}

bool is_global_memory(const void* address) {
  const Interval library{&__ehdr_start, &_end};
  return !library.contains(address) && !launcher_stack.contains(address) && !is_shared_memory(address);
}

std::string name_of(const void* kernel) {
  Dl_info info;
  if (dladdr(kernel, &info) == 0 || info.dli_sname == nullptr || info.dli_saddr != kernel) return "?";
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> readable(
      abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status), std::free);
  return status == 0 ? readable.get() : info.dli_sname;
}

// Counts the bytes that the launch had not touched before.
uint64_t mark(std::vector<bool>& touched, size_t first, size_t bytes) {
  uint64_t fresh = 0;
  for (size_t i = first; i < first + bytes && i < touched.size(); i++) {
    fresh += !touched[i];
    touched[i] = true;
  }
  return fresh;
}

// An access that is no single load or store, such as a copy of a large structure, counts as several of the
// width that its address and size allow.
void count(Traffic& traffic, const void* address, size_t bytes, bool write) {
  const int width = std::min(std::countr_zero(reinterpret_cast<uintptr_t>(address) | bytes), 4);
  const int log_width = std::has_single_bit(bytes) && bytes <= 16 ? std::countr_zero(bytes) : width;
  (write ? traffic.writes : traffic.reads)[log_width] += bytes >> log_width;
  (write ? traffic.written_bytes : traffic.read_bytes) += bytes;
}

void add(Traffic& sum, const Traffic& term) {
  sum.read_bytes += term.read_bytes;
  sum.written_bytes += term.written_bytes;
  sum.distinct_read_bytes += term.distinct_read_bytes;
  sum.distinct_written_bytes += term.distinct_written_bytes;
  for (int w = 0; w < 5; w++) {
    sum.reads[w] += term.reads[w];
    sum.writes[w] += term.writes[w];
  }
}

}  // namespace

void trace_launch_begin(const void* kernel) {
  launcher_stack = own_stack();
  for (Range& range : ranges) {
    const size_t bytes = range.bytes.end - range.bytes.begin;
    range.read.assign(bytes, false);
    range.written.assign(bytes, false);
  }
  launches.push_back({name_of(kernel), std::vector<Traffic>(ranges.size() + 1)});
}

void trace_access(const void* address, size_t bytes, bool write) {
  if (!inside_launch || block.running == nullptr || block.running->fiber->contains(address)) return;
  std::vector<Traffic>& traffic = launches.back().traffic;
  const auto after = ranges_by_begin.upper_bound(static_cast<const char*>(address));
  const size_t r = after == ranges_by_begin.begin() ? ranges.size() : std::prev(after)->second;
  if (r < ranges.size() && ranges[r].bytes.contains(address)) {
    Range& range = ranges[r];
    count(traffic[r], address, bytes, write);
    const size_t first = static_cast<const char*>(address) - range.bytes.begin;
    uint64_t& distinct = write ? traffic[r].distinct_written_bytes : traffic[r].distinct_read_bytes;
    distinct += mark(write ? range.written : range.read, first, bytes);
    return;
  }
  if (is_global_memory(address)) count(traffic.back(), address, bytes, write);
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void cuda_on_cpu_trace_reset() {
  ranges.clear();
  ranges_by_begin.clear();
  launches.clear();
}

EXPORTED void cuda_on_cpu_trace_register(const char* name, const void* begin, size_t bytes) {
  const char* const first = static_cast<const char*>(begin);
  if (bytes > 0) ranges_by_begin[first] = ranges.size();
  ranges.push_back({name, {first, first + bytes}, {}, {}});
}

EXPORTED int cuda_on_cpu_trace_launches() { return static_cast<int>(launches.size()); }

EXPORTED const char* cuda_on_cpu_trace_kernel(int launch) { return launches.at(launch).kernel.c_str(); }

EXPORTED int cuda_on_cpu_trace_traffic(int launch, const char* name, cuda_on_cpu_traffic* traffic) {
  const int count = static_cast<int>(launches.size());
  if (launch < -1 || launch >= count) return 1;
  size_t index = 0;
  while (index < ranges.size() && ranges[index].name != name) index++;
  const bool other = *name == '\0';
  if (index == ranges.size() && !other) return 1;
  *traffic = {};
  for (int l = launch < 0 ? 0 : launch; l < (launch < 0 ? count : launch + 1); l++) {
    const std::vector<Traffic>& all = launches[l].traffic;
    if (other)
      add(*traffic, all.back());
    else if (index + 1 < all.size())
      add(*traffic, all[index]);
  }
  return 0;
}
#endif
