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

struct RowwiseArguments {
  int64_t rows, classes, inner;
  DType type, out_type;     // of x and y; of out and out2
  Stream x, y, out, out2;   // data == nullptr: not there, or not wanted
  bool in_place = false;    // out lies over x
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
};

struct RowwiseOptions {
  double label_smoothing = 0, z_loss = 0, softcap = 0, sign = 1;
};

// The kernels of one instruction set. Each region defines one; the choice is made once, at load.
struct Kernels {
  const char* name;
  void (*rowwise)(RowwiseOp, const RowwiseOptions&, const RowwiseArguments&);
};

enum class InstructionSet : int { baseline, avx2, avx512, count };

const Kernels& kernels();  // those of the chosen instruction set

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace fused_ml
