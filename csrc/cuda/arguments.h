// What the operators hand to the CUDA kernels, beside what both devices take: no torch, no device code.
#pragma once

#include <cuda_runtime.h>

#include "../cpu/arguments.h"

namespace fused_ml::cuda {

// One number on the device, that the host never reads.
enum class NumberType : int { float64, float32, int64 };
struct Number {
  const void* data = nullptr;  // nullptr: not there
  NumberType type = NumberType::float64;
};

// The second launch of a sum over a grid: the blocks' sums added, divided, and written in the result's dtype.
struct Total {
  const double* partials;  // [count]
  int64_t count;
  double denominator;         // if the next is not there
  Number device_denominator;  // []
  void* out;                  // []
  DType type;                 // of out
};
void launch_total(const Total& total, cudaStream_t stream);

struct PointwiseTask {
  PointwiseArguments a;        // a.sum is not used
  Number denominator;          // if it is there, a.gradient_scale is its inverse
  double* partials = nullptr;  // [most_blocks()], sums of values; nullptr: not wanted
  int64_t head = 0, runs = 0;  // chosen by launch_pointwise: elements before the first run; runs
};
// Returns how many partial sums it writes.
int64_t launch_pointwise(PointwiseOp op, const PointwiseOptions& options, const PointwiseTask& task,
                         cudaStream_t stream);

// The largest grid of a kernel that strides over its work, on the current device.
int64_t most_blocks();

}  // namespace fused_ml::cuda
