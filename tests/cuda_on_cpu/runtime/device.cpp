// The device that launches see: an H100, unless CUDA_ON_CPU_ATTRIBUTES says otherwise.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "block.h"
#include "host.h"

namespace cuda_on_cpu {
namespace {

struct Property {
  cudaDeviceAttr attribute;
  const char* name;
  int value;
};

#define PROPERTY(name, value) {cudaDevAttr##name, #name, value}
constexpr Property kProperties[] = {
    PROPERTY(MaxThreadsPerBlock, 1024),
    PROPERTY(MaxBlockDimX, 1024),
    PROPERTY(MaxBlockDimY, 1024),
    PROPERTY(MaxBlockDimZ, 64),
    PROPERTY(MaxGridDimX, 2147483647),
    PROPERTY(MaxGridDimY, 65535),
    PROPERTY(MaxGridDimZ, 65535),
    PROPERTY(MaxSharedMemoryPerBlock, 48 << 10),
    PROPERTY(MaxSharedMemoryPerBlockOptin, 227 << 10),
    PROPERTY(MaxSharedMemoryPerMultiprocessor, 228 << 10),
    PROPERTY(ReservedSharedMemoryPerBlock, 1 << 10),
    PROPERTY(TotalConstantMemory, 64 << 10),
    PROPERTY(WarpSize, 32),
    PROPERTY(MaxRegistersPerBlock, 65536),
    PROPERTY(MaxRegistersPerMultiprocessor, 65536),
    PROPERTY(MultiProcessorCount, 132),
    PROPERTY(MaxThreadsPerMultiProcessor, 2048),
    PROPERTY(MaxBlocksPerMultiprocessor, 32),
    PROPERTY(L2CacheSize, 50 << 20),
    PROPERTY(ComputeCapabilityMajor, 9),
    PROPERTY(ComputeCapabilityMinor, 0),
    PROPERTY(GlobalMemoryBusWidth, 5120),
    PROPERTY(ConcurrentKernels, 1),
    PROPERTY(CooperativeLaunch, 0),
    PROPERTY(ClusterLaunch, 0),
    PROPERTY(MemoryPoolsSupported, 1),
};
#undef PROPERTY

// The value that a list like "MultiProcessorCount=108,ComputeCapabilityMajor=8" gives, else `otherwise`.
int overridden(const char* list, const char* name, int otherwise) {
  const size_t length = std::strlen(name);
  for (const char* at = list; at != nullptr; at = std::strchr(at, ',')) {
    if (*at == ',') at++;
    if (std::strncmp(at, name, length) == 0 && at[length] == '=') return std::atoi(at + length + 1);
  }
  return otherwise;
}

}  // namespace

int device_attribute(cudaDeviceAttr attribute) {
  const char* const list = std::getenv("CUDA_ON_CPU_ATTRIBUTES");
  for (const Property& property : kProperties)
    if (property.attribute == attribute) return overridden(list, property.name, property.value);
  fail(Where::current(), "device attribute %d is not modelled: add it to device.cpp",
       static_cast<int>(attribute));
}

// Registers and static shared memory are not known here: what limits the blocks is threads, dynamic shared
// memory and the number of blocks.
cudaError_t occupancy(int* blocks, int threads, size_t dynamic_bytes) {
  if (blocks == nullptr || threads < 1) return record(cudaErrorInvalidValue);
  const int rounded = (threads + kWarp - 1) / kWarp * kWarp;
  const size_t bytes = dynamic_bytes + device_attribute(cudaDevAttrReservedSharedMemoryPerBlock);
  const int by_memory =
      static_cast<int>(device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / bytes);
  const int by_threads = device_attribute(cudaDevAttrMaxThreadsPerMultiProcessor) / rounded;
  const bool fits = threads <= device_attribute(cudaDevAttrMaxThreadsPerBlock);
  *blocks =
      fits ? std::min({by_memory, by_threads, device_attribute(cudaDevAttrMaxBlocksPerMultiprocessor)}) : 0;
  return cudaSuccess;
}

}  // namespace cuda_on_cpu
