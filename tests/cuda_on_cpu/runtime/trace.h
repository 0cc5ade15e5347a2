// What a kernel's accesses of global memory come to, per launch and per registered range.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

// Called by the compiler's instrumentation for every access of the sources; counts those that kernels make.
void trace_access(const void* address, size_t bytes, bool write);

}  // namespace cuda_on_cpu

extern "C" {

// `reads` and `writes` count accesses of 1, 2, 4, 8 and 16 bytes. Distinct bytes are counted once per launch
// however often they are touched; known for registered ranges only.
struct cuda_on_cpu_traffic {
  uint64_t read_bytes;
  uint64_t written_bytes;
  uint64_t distinct_read_bytes;
  uint64_t distinct_written_bytes;
  uint64_t reads[5];
  uint64_t writes[5];
};

// Forgets all ranges and all launches.
void cuda_on_cpu_trace_reset();
// From the next launch on, accesses in [begin, begin + bytes) count for this name. Ranges must not overlap.
void cuda_on_cpu_trace_register(const char* name, const void* begin, size_t bytes);
// The number of launches since the reset.
int cuda_on_cpu_trace_launches();
// The name of a launch's kernel; "?" where the symbol is not visible. Valid until the next reset.
const char* cuda_on_cpu_trace_kernel(int launch);
// One launch's traffic in a range, or that of all launches together for -1. The empty name stands for global
// memory that is not registered. Returns 0, or 1 if there is no such launch or range.
int cuda_on_cpu_trace_traffic(int launch, const char* name, cuda_on_cpu_traffic* traffic);
}
