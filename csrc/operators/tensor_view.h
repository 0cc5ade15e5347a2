// What DLPack (https://dmlc.github.io/dlpack) says of a tensor, for the libraries of kernels: torch keeps its
// own header of it from code of the stable ABI. python/gather.cpp proves the layouts to be the same.
#pragma once

#include <cstdint>

namespace fused_ml {

struct TensorView {
  enum Device : int32_t { cpu = 1, cuda = 2 };
  enum Type : uint8_t { floating = 2, bfloat = 4 };

  void* data;
  int32_t device, device_index;
  int32_t dims;
  uint8_t type, bits;
  uint16_t lanes;
  int64_t *sizes, *strides;  // [dims], of elements
  uint64_t byte_offset;

  void* address() const { return static_cast<char*>(data) + byte_offset; }
};

}  // namespace fused_ml
