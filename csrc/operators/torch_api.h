// The part of libtorch's stable ABI that the operators use, and the small helpers they share.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>
#include <vector>

#include "frames/arguments.h"

namespace fused_ml {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Raises unless the kernels compute in `type`.
inline DType dtype_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return DType::float32;
    case ScalarType::Double:
      return DType::float64;
    case ScalarType::BFloat16:
      return DType::bfloat16;
    case ScalarType::Half:
      return DType::float16;
    default:
      STD_TORCH_CHECK(false, "fused_ml computes in float32, float64, bfloat16 and float16; got scalar type ",
                      static_cast<int>(type));
  }
}
inline DType dtype_of(const Tensor& tensor) { return dtype_of(tensor.scalar_type()); }

}  // namespace fused_ml
