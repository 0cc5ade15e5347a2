// Launches: what the driver would refuse, the order of blocks and threads, and the run of the grid.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>

#include "block.h"
#include "host.h"
#include "sanitizers.h"

namespace cuda_on_cpu {
namespace {

// One launch at a time, from whichever OS thread.
std::mutex one_launch;

std::mutex limits_mutex;
std::map<const void*, size_t> limits;

bool within(unsigned value, cudaDeviceAttr most) {
  return value >= 1 && value <= static_cast<unsigned>(device_attribute(most));
}

cudaError_t check_limits(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3 grid = config.gridDim, threads = config.blockDim;
  const bool fits = within(grid.x, cudaDevAttrMaxGridDimX) && within(grid.y, cudaDevAttrMaxGridDimY) &&
                    within(grid.z, cudaDevAttrMaxGridDimZ) && within(threads.x, cudaDevAttrMaxBlockDimX) &&
                    within(threads.y, cudaDevAttrMaxBlockDimY) &&
                    within(threads.z, cudaDevAttrMaxBlockDimZ) &&
                    within(threads.x * threads.y * threads.z, cudaDevAttrMaxThreadsPerBlock);
  if (!fits) return cudaErrorInvalidConfiguration;
  return config.dynamicSmemBytes > dynamic_limit(kernel) ? cudaErrorInvalidValue : cudaSuccess;
}

// Attributes that change nothing where launches never overlap are accepted.
void check_attributes(const cudaLaunchConfig_t& config) {
  for (unsigned i = 0; i < config.numAttrs; i++) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    switch (attribute.id) {
      case cudaLaunchAttributeIgnore:
      case cudaLaunchAttributeClusterSchedulingPolicyPreference:
      case cudaLaunchAttributeProgrammaticStreamSerialization:
      case cudaLaunchAttributePriority:
      case cudaLaunchAttributePreferredSharedMemoryCarveout:
        break;
      case cudaLaunchAttributeClusterDimension: {
        const auto& cluster = attribute.val.clusterDim;
        if (cluster.x == 1 && cluster.y == 1 && cluster.z == 1) break;
        fail(Where::current(), "clusters of more than one block are not modelled");
      }
      default:
        fail(Where::current(), "launch attribute %d is not modelled", static_cast<int>(attribute.id));
    }
  }
}

// CUDA_ON_CPU_ORDER: forward, reverse or shuffled:<seed>. Every shuffled launch has its own order.
void choose_order() {
  static uint64_t launches;
  const char* const order = std::getenv("CUDA_ON_CPU_ORDER");
  uint64_t seed = 0;
  if (order == nullptr || std::strcmp(order, "forward") == 0) {
    block.order = Order::forward;
  } else if (std::strcmp(order, "reverse") == 0) {
    block.order = Order::reverse;
  } else if (std::sscanf(order, "shuffled:%" SCNu64, &seed) == 1) {
    block.order = Order::shuffled;
    block.random = ((seed + 1) * 0x9e3779b97f4a7c15u ^ ++launches * 0xbf58476d1ce4e5b9u) | 1;
  } else {
    fail(Where::current(), "CUDA_ON_CPU_ORDER is '%s'; it can be forward, reverse or shuffled:<seed>", order);
  }
}

void run_grid() {
  const uint64_t x = gridDim.x, y = gridDim.y, count = x * y * gridDim.z;
  // A step that has no divisor in common with the count visits every block once.
  uint64_t step = 1, start = 0;
  if (block.order == Order::shuffled) {
    const uint32_t bound = static_cast<uint32_t>(std::min<uint64_t>(count, UINT32_MAX));
    start = random_below(bound);
    for (step = random_below(bound) + 1; std::gcd(step, count) != 1;) step++;
  }
  for (uint64_t i = 0; i < count; i++) {
    uint64_t number = i;
    if (block.order == Order::reverse) number = count - 1 - i;
    if (block.order == Order::shuffled) number = (start + static_cast<__uint128_t>(i) * step) % count;
    blockIdx = {static_cast<unsigned>(number % x), static_cast<unsigned>(number / x % y),
                static_cast<unsigned>(number / (x * y))};
    run_block();
  }
}

}  // namespace

thread_local bool inside_launch;

size_t dynamic_limit(const void* kernel) {
  const std::lock_guard lock(limits_mutex);
  const auto found = limits.find(kernel);
  return found == limits.end() ? kDefaultSharedBytes : found->second;
}

cudaError_t set_function_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
    fail(Where::current(), "function attribute %d is not modelled", static_cast<int>(attribute));
  if (value < 0 || value > device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin))
    return record(cudaErrorInvalidValue);
  const std::lock_guard lock(limits_mutex);
  limits[kernel] = std::max<size_t>(value, kDefaultSharedBytes);
  return cudaSuccess;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const Work& work) {
  if (inside_launch) fail(Where::current(), "a kernel launches a kernel: not modelled");
  check_attributes(config);
  if (const cudaError_t error = check_limits(config, work.kernel); error != cudaSuccess) return record(error);
  const std::lock_guard lock(one_launch);
  inside_launch = true;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  block.work = &work;
  block.count = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  block.dynamic_bytes = config.dynamicSmemBytes;
  block.launcher_tsan = tsan_current();
  choose_order();
  trace_launch_begin(work.kernel);
  run_grid();
  tsan_acquire(&block.grid_token);
  rest_finished_threads();
  inside_launch = false;
  return cudaSuccess;
}

}  // namespace cuda_on_cpu
