// Tensors of classes and rows, seen as the frame's [outer, class, inner].
#pragma once

#include <algorithm>
#include <utility>

#include "tensors.h"

namespace fused_ml {

inline int element_bytes(ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return 1;
    case ScalarType::Int:
      return 4;
    case ScalarType::Long:
      return 8;
    default:
      STD_TORCH_CHECK(false, "expected class targets of type uint8, int32 or int64, got scalar type ",
                      static_cast<int>(type));
  }
}

// The input (and second input) of a rowwise operator, and outputs laid out like them.
class RowwiseTensors {
 public:
  RowwiseTensors(int64_t class_dim, const Tensor& input, const std::optional<Tensor>& second)
      : dim(class_dim), x(input), y(second) {
    if (dim < 0) dim += std::max<int64_t>(x.dim(), 1);
    for (int64_t d = 0; d < x.dim(); ++d) {
      if (d != dim && x.size(d) != 1) others.push_back(d);
    }
  }

  // An output with the input's strides where the input is dense and its rows lie evenly, else contiguous.
  Tensor new_out(ScalarType type) {
    out = empty_like(x, type);
    if (!split()) out = empty_contiguous(x, type);
    return *out;
  }
  // As torch's softmax gives it.
  Tensor new_contiguous_out(ScalarType type) {
    out = empty_contiguous(x, type);
    return *out;
  }
  Tensor new_out2(ScalarType type) {
    out2 = empty_like(*y, type);
    if (!split()) out2 = empty_contiguous(*y, type);
    return *out2;
  }
  // Before outputs are made: copies inputs that a CPU would gather one by one, as torch does; their outputs
  // are contiguous then. With repeats: and those in which one element stands for all rows behind a class.
  void line_up_inputs(bool repeats) {
    if (!x.is_cpu() || !split()) return;
    const bool scattered_x = is_scattered(x, repeats), scattered_y = y && is_scattered(*y, repeats);
    if (scattered_x) x = as_contiguous(x);
    if (scattered_y) y = as_contiguous(*y);
  }
  // Afterwards: copies an input that alone would be gathered in runs of a few elements, as one that is
  // expanded or transposed within the positions. 64x128x12x12 over dim 0, gradient expanded along the last:
  // 16 -> 4 ms.
  void line_up_with_out() {
    if (breaks_runs() || (x.is_cpu() && misses_short_runs())) x = as_contiguous(x);
  }
  void out_over_x() {
    out = x;
    in_place = true;
  }

  RowwiseArguments arguments() {
    RowwiseArguments a{};
    if (!split()) {
      STD_TORCH_CHECK(!in_place,
                      "the gradient can be written over the input only where the input's dimensions before "
                      "and after the classes each lie evenly in memory; call without inplace_backward");
      x = as_contiguous(x);
      if (y) y = as_contiguous(*y);
      STD_TORCH_CHECK(split(), "fused_ml: internal error: rows of an output do not lie evenly in memory");
    }
    a.classes = x.dim() ? x.size(dim) : 1;
    a.rows = a.classes ? x.numel() / a.classes : 0;
    a.inner = inner_size();
    a.type = dtype_of(x);
    a.out_type = out ? dtype_of(*out) : a.type;
    a.x = stream(x);
    if (y) a.y = stream(*y);
    if (out) a.out = stream(*out);
    if (out2) a.out2 = stream(*out2);
    a.in_place = in_place;
    return a;
  }

 private:
  static bool merges(const Tensor& t, int64_t d, int64_t next) {
    return t.stride(d) == t.stride(next) * t.size(next);
  }
  bool merges(int64_t d, int64_t next) const {
    return merges(x, d, next) && (!y || merges(*y, d, next)) && (!out || merges(*out, d, next)) &&
           (!out2 || merges(*out2, d, next));
  }

  // Finds where the merged dimensions fall apart into outer and inner: at most one place, or the tensors do
  // not fit.
  bool split() {
    first_inner = 0;
    if (x.numel() == 0) return true;
    int places = 0;
    for (size_t i = 0; i + 1 < others.size(); ++i) {
      if (merges(others[i], others[i + 1])) continue;
      if (places++ == 0) first_inner = i + 1;
    }
    return places <= 1;
  }
  int64_t inner_size() const {
    int64_t size = 1;
    for (size_t i = first_inner; i < others.size(); ++i) size *= x.size(others[i]);
    return std::max<int64_t>(size, 1);
  }
  static constexpr int64_t kLeastRun = 16;

  // Whether the input alone keeps the others' rows from lying evenly in runs of so many.
  bool breaks_runs() {
    const auto in_runs = [&] { return split() && inner_size() >= kLeastRun; };
    if (in_runs()) return false;
    const Tensor input = std::exchange(x, *out);  // where a copy would lie
    const bool helps = in_runs();
    x = input;
    return helps;
  }
  // Whether neither classes nor rows lie side by side.
  bool is_scattered(const Tensor& t, bool repeats) const {
    const Stream s = stream(t);
    if (s.by_inner == 0 && !others.empty() && others.back() > dim) return repeats;
    return s.by_inner != 1 && s.by_class != 1 && s.by_class != 0;
  }
  // Whether the output is in runs of a few rows, and the input does not lie as they do.
  bool misses_short_runs() {
    if (!split()) return false;
    const Stream in = stream(x), to = stream(*out);
    const bool short_runs = to.by_inner == 1 && to.by_class > 1 && to.by_class < kLeastRun;
    return short_runs && (in.by_inner != 1 || in.by_class != to.by_class);
  }
  Stream stream(const Tensor& t) const {
    Stream s;
    s.data = t.const_data_ptr();
    s.by_class = t.dim() ? t.stride(dim) : 1;
    s.by_inner = others.empty() ? 1 : t.stride(others.back());
    s.by_outer = first_inner ? t.stride(others[first_inner - 1]) : 0;
    return s;
  }

  int64_t dim;
  std::vector<int64_t> others;  // the dimensions but the classes', outermost first, those of size 1 left out
  size_t first_inner = 0;       // the first of them that is inner
  Tensor x;
  std::optional<Tensor> y, out, out2;
  bool in_place = false;
};

}  // namespace fused_ml
