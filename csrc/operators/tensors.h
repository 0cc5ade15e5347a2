// Tensor helpers that the operators share.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>

#include "kept_memory.h"
#include "torch_api.h"

namespace fused_ml {

enum Reduction : int64_t { kNone, kMean, kSum };

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
         type == ScalarType::Half;
}

// Of an element of the types that results have.
inline size_t bytes_of(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
    case ScalarType::Long:
      return 8;
    case ScalarType::Float:
      return 4;
    case ScalarType::BFloat16:
    case ScalarType::Half:
      return 2;
    default:
      STD_TORCH_CHECK(false, "fused_ml: internal error: no result has scalar type ", static_cast<int>(type));
  }
}

inline int32_t type_code(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return aoti_torch_dtype_float64();
    case ScalarType::BFloat16:
      return aoti_torch_dtype_bfloat16();
    case ScalarType::Half:
      return aoti_torch_dtype_float16();
    case ScalarType::Long:
      return aoti_torch_dtype_int64();
    default:
      return aoti_torch_dtype_float32();
  }
}

// Raises unless the tensor lies where `like` does: a kernel follows its pointer unseen.
inline void check_device(const char* name, const Tensor& tensor, const Tensor& like) {
  const bool same = tensor.is_cpu() == like.is_cpu() && tensor.get_device_index() == like.get_device_index();
  STD_TORCH_CHECK(same, "expected ", name, " on the input's device");
}

// A fresh dense tensor on the device of `like`. Straight to the allocator: through the dispatcher it costs
// three times that.
inline Tensor fresh(const Tensor& like, const int64_t* sizes, const int64_t* strides, int64_t dim,
                    ScalarType type) {
  int32_t device_type = 0, device_index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  size_t bytes = bytes_of(type);
  for (int64_t d = 0; d < dim; ++d) bytes *= static_cast<size_t>(sizes[d]);
  if (bytes >= kLargeResult && device_type == aoti_torch_device_type_cpu()) {
    return large_tensor(sizes, strides, dim, type_code(type), device_index, bytes);
  }
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, sizes, strides, type_code(type), device_type, device_index, &handle));
  return Tensor(handle);
}

// The tensor itself where it is contiguous: asking torch takes a third of a microsecond even then.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// A fresh contiguous tensor of the shape of `like`.
inline Tensor empty_contiguous(const Tensor& like, ScalarType type) {
  const auto sizes = like.sizes();
  std::vector<int64_t> strides(sizes.size());
  int64_t step = 1;
  for (size_t d = sizes.size(); d-- > 0; step *= std::max<int64_t>(sizes[d], 1)) strides[d] = step;
  return fresh(like, sizes.data(), strides.data(), like.dim(), type);
}

// A fresh tensor with the strides that torch gives it: those of `like` where it is dense.
inline Tensor empty_like(const Tensor& like, ScalarType type) {
  if (like.is_contiguous()) return empty_contiguous(like, type);
  std::optional<Tensor> model = torch::stable::empty_like(like);
  const size_t bytes = static_cast<size_t>(model->numel()) * bytes_of(type);
  if (type == like.scalar_type() && bytes < kLargeResult) return *model;
  const auto sizes = like.sizes(), strides_ = model->strides();
  const std::vector<int64_t> strides(strides_.begin(), strides_.end());
  model.reset();  // before there is a second one
  return fresh(like, sizes.data(), strides.data(), like.dim(), type);
}

inline Tensor new_vector(const Tensor& like, int64_t size, ScalarType type) {
  const int64_t step = 1;
  return fresh(like, &size, &step, 1, type);
}

inline Tensor nothing(const Tensor& like) { return new_vector(like, 0, like.scalar_type()); }

// Writes one number in memory of the CPU.
inline void set_number(const Tensor& number, double value) {
  void* data = number.mutable_data_ptr();
  switch (number.scalar_type()) {
    case ScalarType::Double:
      *static_cast<double*>(data) = value;
      break;
    case ScalarType::Float:
      *static_cast<float*>(data) = static_cast<float>(value);
      break;
    case ScalarType::BFloat16:
      *static_cast<torch::headeronly::BFloat16*>(data) = static_cast<float>(value);
      break;
    default:
      *static_cast<torch::headeronly::Half*>(data) = static_cast<float>(value);
  }
}

inline Tensor new_number(const Tensor& like, double value, ScalarType type) {
  Tensor number = fresh(like, nullptr, nullptr, 0, type);
  set_number(number, value);
  return number;
}

inline double number_in(const Tensor& tensor) {
  const Tensor as_double =
      tensor.scalar_type() == ScalarType::Double ? tensor : torch::stable::to(tensor, ScalarType::Double);
  return *as_double.const_data_ptr<double>();
}

}  // namespace fused_ml
