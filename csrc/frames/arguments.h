// What the operators hand to the kernels: plain pointers and numbers, no torch type.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fused_ml {

enum class DType : int { float32, float64, bfloat16, float16 };

// One tensor seen as [outer, class, inner]: strides in elements. Row r is (r / inner, r % inner).
struct Stream {
  const void* data = nullptr;
  int64_t by_outer = 0, by_class = 0, by_inner = 0;
};

// Classes no farther apart than this are near: a line holds some of a row's, so that rows can be taken one by
// one. 0 is near: a class's element is every class's.
constexpr int64_t kNearClasses = 16;

struct RowwiseArguments {
  int64_t rows, classes, inner;
  DType type, out_type;    // of x and y; of out and out2
  Stream x, y, out, out2;  // data == nullptr: not there, or not wanted
  bool in_place = false;   // out lies over x
  bool exact_sums =
      true;  // of terms; false: rounded to A here and there, where no result needs A's last bits
  // The row's own class, its weights, and the scale of its gradient; A is the arithmetic type.
  const void* target = nullptr;  // [rows], uint8, int32 or int64 by target_bytes
  int target_bytes = 0;
  int64_t ignore_index = 0;
  const void* class_weight = nullptr;  // A [classes]
  const void* row_weight = nullptr;    // A [rows]
  const void* row_gradient = nullptr;  // A [rows]
  double gradient_scale = 1;
  // Results by row; nullptr: not wanted.
  void* loss = nullptr;          // A [rows]
  double* loss_sum = nullptr;    // one number
  void* lse = nullptr;           // A [rows]
  int64_t* predicted = nullptr;  // [rows]
  // Set to an out-of-range target's row + 1.
  int64_t* bad_row = nullptr;
};

enum class RowwiseOp : int {
  cross_entropy_plain,
  cross_entropy_class,
  cross_entropy_distribution,
  softmax,
  log_softmax,
  softmax_backward,
  log_softmax_backward,
  own_class,           // loss from the own class's element alone
  own_class_backward,  // and its gradient: 0 but there
};

struct RowwiseOptions {
  double label_smoothing = 0, z_loss = 0, softcap = 0, sign = 1;
};

constexpr int kMaxDims = 8;

// One operand of a pointwise operator: strides in elements, along the arguments' sizes.
struct Elements {
  const void* data = nullptr;  // nullptr: not there, or not wanted
  DType type = DType::float32;
  int64_t strides[kMaxDims] = {};
};

struct PointwiseArguments {
  int64_t numel = 0;
  int dims = 1;
  int64_t sizes[kMaxDims] = {1};
  Elements x, t, w, p, g;     // input, target, weight, positive weight, gradient of the value
  Elements value, dx, dt;     // outputs
  double gradient_scale = 1;  // g, where there is none
  double* sum = nullptr;      // of the values
};

// A formula of catalog/pointwise.h by its place there, and its options in their order.
constexpr int kPointwiseOptions = 4;
struct PointwiseFormula {
  int code = 0;
  double options[kPointwiseOptions] = {};
};

// A tensor list in an optimizer step. Operands of an entry: parameter, gradient, then the states.
constexpr int kMultiTensorOperands = 5;
constexpr int kMultiTensorConstants = 12;
constexpr int64_t kMultiTensorGranule = 256;  // elements; every entry starts a granule
constexpr int64_t kMultiTensorBlock = 16;     // granules: the unit of work

// Strides in elements, dimensions from the outermost in.
struct StridedLayout {
  static constexpr int max_dims = 12;
  int dims;
  int64_t sizes[max_dims];
  int64_t strides[kMultiTensorOperands][max_dims];
};

struct MultiTensorEntry {
  void* operands[kMultiTensorOperands];
  int64_t numel;
  const StridedLayout* layout;              // nullptr: all operands are dense and lie in memory in one order
  double constants[kMultiTensorConstants];  // the formula's members
};

struct MultiTensorArguments {
  const MultiTensorEntry* entries;  // [count]
  const int64_t* first_granule;     // [count + 1], the last is the number of granules
  int64_t count;
  DType type, state_type;  // of parameters and gradients; of the states
  double* block_sums;      // multi_tensor_square_sum: one for each block
};

// The kernels of one instruction set; the choice is made once, at load.
struct Kernels {
  const char* name;
  void (*rowwise)(RowwiseOp, const RowwiseOptions&, const RowwiseArguments&);
  int64_t (*count_rows)(const RowwiseArguments&, int64_t begin, int64_t end);  // that have a class
  void (*pointwise)(const PointwiseFormula&, const PointwiseArguments&);
  void (*multi_tensor_update)(int code, const MultiTensorArguments&);  // of catalog/optimizers.h
  void (*multi_tensor_square_sum)(const MultiTensorArguments&);
};

enum class InstructionSet : int { baseline, avx2, avx512, count };

const Kernels& kernels();  // those of the chosen instruction set

}  // namespace fused_ml
