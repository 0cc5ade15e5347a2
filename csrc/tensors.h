// Tensor helpers that the operators share.
#pragma once

#include <sys/mman.h>

#include "torch_api.h"

namespace fused_ml {

enum Reduction : int64_t { kNone, kMean, kSum };

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
         type == ScalarType::Half;
}

// Page faults are half the time of a large fresh output: ask for huge pages before the first write.
inline void prefer_huge_pages(const Tensor& tensor, size_t bytes) {
  constexpr size_t kWorthIt = size_t{4} << 20;
  if (bytes < kWorthIt) return;
  const uintptr_t data = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t page = (data + 4095) / 4096 * 4096;
  madvise(reinterpret_cast<void*>(page), bytes - (page - data), MADV_HUGEPAGE);
}

inline size_t bytes_of(ScalarType type) {
  return type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : 2;
}

// A fresh tensor with the strides of `like` where it is dense, else contiguous.
inline Tensor empty_like(const Tensor& like, ScalarType type) {
  Tensor out = torch::stable::empty_like(like);
  if (type != like.scalar_type()) out = torch::stable::to(out, type);
  prefer_huge_pages(out, static_cast<size_t>(out.numel()) * bytes_of(type));
  return out;
}

// A fresh contiguous tensor of the shape of `like`.
inline Tensor empty_contiguous(const Tensor& like, ScalarType type) {
  Tensor out = torch::stable::new_empty(like, like.sizes(), type);
  prefer_huge_pages(out, static_cast<size_t>(out.numel()) * bytes_of(type));
  return out;
}

inline Tensor nothing(const Tensor& like) { return torch::stable::new_empty(like, {0}); }

inline Tensor new_number(const Tensor& like, double value, ScalarType type) {
  Tensor number = torch::stable::new_empty(like, {}, type);
  torch::stable::fill_(number, value);
  return number;
}

inline double number_in(const Tensor& tensor) {
  const Tensor as_double =
      tensor.scalar_type() == ScalarType::Double ? tensor : torch::stable::to(tensor, ScalarType::Double);
  return *as_double.const_data_ptr<double>();
}

}  // namespace fused_ml
