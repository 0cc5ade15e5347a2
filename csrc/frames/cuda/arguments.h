// What the operators hand to the CUDA kernels, beside what both devices take: no torch, no device code.
#pragma once

#include <cuda_runtime.h>

#include "frames/arguments.h"

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
  Number numerator;            // a.gradient_scale is multiplied by it, if it is there,
  Number denominator;          // and divided by this one
  double* partials = nullptr;  // [most_blocks()], sums of values; nullptr: not wanted
  int64_t head = 0, runs = 0;  // chosen at the launch: elements before the first run; runs
};
// A formula by its place in Activations or AllLosses (catalog/pointwise.h). They return how many partial sums
// they write.
int64_t launch_activation(int index, const double* options, const PointwiseTask& task, cudaStream_t stream);
int64_t launch_loss(int index, const double* options, const PointwiseTask& task, cudaStream_t stream);

// What a block works on: `rows` rows by `lanes` threads each, over all classes or a chunk of them.
struct Tiling {
  int rows, lanes;          // powers of two; rows * lanes threads
  bool rows_fast;           // neighbours in memory are neighbouring rows, else classes
  bool whole;               // the rows follow each other without a gap: a tile is one segment
  int classes;              // of a tile, at most
  int64_t chunks;           // tiles that a row takes
  int64_t tiles_per_outer;  // rows_fast: tiles of rows of one outer index
};

struct RowwiseTask {
  RowwiseArguments a;          // a.loss_sum and a.bad_row are not used
  Number numerator;            // a.gradient_scale is multiplied by it, if it is there,
  Number denominator;          // and divided by this one
  double* partials = nullptr;  // [tiles_of_rows], sums of losses; nullptr: not wanted
  void* blocks = nullptr;      // block_bytes
  Tiling t;
  int64_t first_tile = 0;  // of rows
};

// How the rows are cut up on the current device, and what memory that takes.
Tiling choose_tiling(RowwiseOp op, const RowwiseArguments& a);
int64_t tiles_of_rows(const Tiling& t, const RowwiseArguments& a);
int64_t block_bytes(const Tiling& t, const RowwiseArguments& a);
void launch_rowwise(RowwiseOp op, const RowwiseOptions& options, const RowwiseTask& task,
                    cudaStream_t stream);

// Sums, over the rows that count, of the weights of row and class. partials: [tiles_of_rows].
void launch_weights(const RowwiseTask& task, bool count_class_weights, cudaStream_t stream);

// data [numel] *= factor; nothing is touched where it is 1.
void launch_scale(void* data, DType type, int64_t numel, const Number& factor, cudaStream_t stream);

// The optimizers. What follows up to MultiTensorConstants lies in the device's memory.

// A parameter group's options, in the order of the family's struct; those that lie on the device in tensors
// of their own are `number`, where it is there.
constexpr int kMultiTensorOptions = 8;
struct MultiTensorGroup {
  double option[kMultiTensorOptions];
  Number number[kMultiTensorOptions];
};

// What tensors with the same constants have in common: a group, and a step count.
struct MultiTensorSet {
  int64_t group;
  double step;         // the count before this step, if the next is not there
  Number device_step;  // counted up by the kernel
  int64_t first;       // the states are new, and zero
};

struct MultiTensorTensor {
  void* operands[kMultiTensorOperands];
  int64_t numel;
  int64_t end_granule;  // the first that is not of this tensor
  int64_t layout;  // bytes from the table's begin to its StridedLayout; 0: operands are dense, in one order
  int32_t set;
  int32_t head;  // elements before those that all operands hold 16-byte aligned; -1: there is no such place
};

// The formula's members, in either arithmetic. Written by the device.
struct alignas(16) MultiTensorConstants {
  double wide[kMultiTensorConstants];
  float narrow[kMultiTensorConstants];
};

// The tensors that one kernel takes, on the device.
struct MultiTensorList {
  const unsigned char* table;
  const MultiTensorTensor* tensors;  // [count]
  int64_t count, granules;
  DType type, state_type;
  int64_t granules_of_block = 1;  // chosen by the launch
};

// Before the tensors' kernels, in one block: the constants of every set, step counts, norm and whether the
// step is skipped.
struct MultiTensorPreparation {
  int family;  // of catalog/optimizers.h
  const MultiTensorGroup* groups;
  const MultiTensorSet* sets;  // [count]
  int64_t count;
  double gradient_factor, max_norm;
  Number grad_scale, found_inf, square_sum;  // where they are there
  MultiTensorConstants* constants;           // [count]
  void* norm = nullptr;                      // [], of norm_type; 0 if there is no square_sum
  DType norm_type = DType::float32;
  float* skipped = nullptr;  // [], 0 or 1
};
void launch_preparation(const MultiTensorPreparation& preparation, cudaStream_t stream);

// code: of an update of catalog/optimizers.h. skipped: nullptr, or not 0 if nothing is to be done.
void launch_update(int code, const MultiTensorList& list, const MultiTensorConstants* constants,
                   const float* skipped, cudaStream_t stream);

// Sums of squares of the gradients, a block each. partials: [most_blocks()]. Returns how many it writes.
int64_t launch_square_sum(const MultiTensorList& list, double* partials, cudaStream_t stream);

// Bytes from the host, by way of the kernels' arguments: no memory of the host has to outlive the call, and a
// captured graph keeps them. At most kPage at a time; to and bytes are multiples of 16.
constexpr int kPage = 3584;
void launch_upload(const unsigned char* from, unsigned char* to, int bytes, cudaStream_t stream);

// The largest grid of a kernel that strides over its work, on the current device.
int64_t most_blocks();

}  // namespace fused_ml::cuda
