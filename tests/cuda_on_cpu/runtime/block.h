// The state of the block that is running. One launch runs at a time (see launch.cpp), so there is one of it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../include/cuda_on_cpu/engine.h"
#include "fiber.h"

namespace cuda_on_cpu {

inline constexpr int kMaxThreads = 1024;
inline constexpr int kWarp = 32;

enum class State : uint8_t { ready, at_barrier, at_warp, exited };

struct Thread {
  uint3 index;
  State state;
  Fiber* fiber;  // null until the thread starts
  Where where;   // of the barrier or warp operation it came to last
  unsigned mask;
  int source;
  uint64_t value;
  uint64_t result;
  void* tsan;   // ThreadSanitizer's notion of the thread
  bool fenced;  // has done a __threadfence
};

struct Warp {
  unsigned present;            // lanes that the block has
  unsigned waiting;            // lanes in a warp operation
  uint8_t sync_parity[kWarp];  // by the mask's lowest lane: flips at every completed __syncwarp
  char sync_token[kWarp][2];   // ThreadSanitizer's, by the same lane and parity
};

enum class Order : uint8_t { forward, reverse, shuffled };

struct Block {
  const Work* work = nullptr;
  uint64_t serial = 0;  // counts all blocks ever run
  size_t dynamic_bytes = 0;
  size_t static_bytes = 0;

  Thread threads[kMaxThreads];
  Warp warps[kMaxThreads / kWarp];
  int count = 0;
  int alive = 0;
  Thread* running = nullptr;  // null outside kernels

  int at_barrier = 0;
  int predicates = 0;
  int barrier_result = 0;
  int barrier_parity = 0;
  char barrier_token[2];  // ThreadSanitizer's

  // Threads that can run; the next is the last one, in a shuffled order any.
  uint16_t ready[kMaxThreads];
  int ready_count = 0;
  Order order = Order::forward;
  uint64_t random = 0;

  Fiber launcher;
  void* launcher_tsan = nullptr;
  std::vector<void*> finished_tsan;  // of this launch
  std::vector<void*> rested_tsan;    // of launches before it
  char start_token;                  // ThreadSanitizer's
  char grid_token;                   // ThreadSanitizer's
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;

  int number(const Thread& thread) const { return static_cast<int>(&thread - threads); }
};

extern Block block;

// Lets the lanes of the mask, in the warp that starts at thread `first`, run again.
void make_ready(int first, unsigned mask);

// Gives way to the next thread that can run, until the calling thread can.
void sleep();

// As `fail`, for a place that comes without a function's name.
[[noreturn]] __attribute__((format(printf, 3, 4))) void fail_at(const char* file, unsigned line,
                                                                const char* format, ...);

bool same_place(const Where& a, const Where& b);

// A number in [0, bound) from the order's seed.
uint32_t random_below(uint32_t bound);

// Runs all threads of the block to their end.
void run_block();

// ThreadSanitizer's notions of the threads that have ended are there for the next launch's.
void rest_finished_threads();

// Starts and frees the memory of FUSED_ML_SHARED and FUSED_ML_DYNAMIC_SHARED.
void begin_shared_memory();
void end_shared_memory();

// The most shared memory that a block may have without and with cudaFuncSetAttribute.
inline constexpr size_t kDefaultSharedBytes = 48 << 10;
size_t dynamic_limit(const void* kernel);

// One of the device's properties, after CUDA_ON_CPU_ATTRIBUTES. -1 where the device has no such property.
int device_attribute(cudaDeviceAttr attribute);

// Whether the calling OS thread is in a launch.
extern thread_local bool inside_launch;

// The byte counter's part in a launch.
#if defined(CUDA_ON_CPU_TRACE)
void trace_launch_begin(const void* kernel);
#else
inline void trace_launch_begin(const void*) {}
#endif

}  // namespace cuda_on_cpu
