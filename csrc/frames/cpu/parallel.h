// torch's thread pool, seen from kernel code: a function pointer, so that no template crosses the regions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fused_ml {

// Calls body(context, begin, end) over a partition of [0, count), on torch's threads, at least `grain` a
// call.
void parallel_for(int64_t count, int64_t grain, void (*body)(void* context, int64_t begin, int64_t end),
                  void* context);

int64_t divide_up(int64_t a, int64_t b);

// 64-byte aligned memory of this thread, kept between calls; slots, so that a caller and its callees can
// each hold one. Valid until the same thread asks for the same slot again.
enum class Scratch { call, split, task, count };
void* thread_scratch(Scratch slot, size_t bytes);

}  // namespace fused_ml
