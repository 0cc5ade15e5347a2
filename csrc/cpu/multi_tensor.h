// The multi_tensor frame: one formula over every parameter of a model, in one parallel region.
//
// The tensors lie on one axis, each rounded up to whole granules of 256 elements; a block of 16 granules is
// the unit of work, so that threads share the elements evenly whatever the tensors' sizes, and a partition of
// the blocks cuts no vector: the same bits for any number of threads. A tensor whose operands lie in memory
// in one order is updated in place; any other is copied granule by granule to flat buffers and back, so there
// is one arithmetic loop.
#pragma once

#include "multi_tensor_flat.h"

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kBlock = kMultiTensorBlock;
constexpr int64_t kBlocksPerTask = 16;  // 64 Ki elements at least: less is not worth waking a thread for

// Denormal results and operands are 0 while this lives: arithmetic on moments that have decayed below the
// smallest normal number would take over a hundred cycles an element.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) {
    _mm_setcsr(saved_ | 0x8040u);
  }  // flush-to-zero, denormals-are-zero
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#endif
};

// Calls visit(entry, begin, end) for the elements of granules [granule, last), in order.
template <class Visit>
FUSED_ML_INLINE void visit_elements(const MultiTensorArguments& a, int64_t granule, int64_t last,
                                    const Visit& visit) {
  int64_t low = 0, high = a.count;  // first_granule[low] <= granule < first_granule[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (a.first_granule[middle] <= granule ? low : high) = middle;
  }
  for (int64_t t = low; granule < last; ++t) {
    const int64_t first = a.first_granule[t];
    const int64_t stop = a.first_granule[t + 1] < last ? a.first_granule[t + 1] : last;
    if (granule >= stop) continue;  // a tensor without elements
    const MultiTensorEntry& entry = a.entries[t];
    const int64_t end = (stop - first) * kGranule;
    visit(entry, (granule - first) * kGranule, end < entry.numel ? end : entry.numel);
    granule = stop;
  }
}

// Calls run(i, offset, count, stride) for each inner run of elements [begin, begin + n) of a strided operand.
template <class Run>
FUSED_ML_INLINE void visit_strided(const StridedLayout& layout, int operand, int64_t begin, int64_t n,
                                   const Run& run) {
  const int inner = layout.dims - 1;
  const int64_t* stride = layout.strides[operand];
  int64_t position[StridedLayout::max_dims];
  int64_t offset = 0;
  for (int d = inner; d >= 0; --d) {
    position[d] = begin % layout.sizes[d];
    begin /= layout.sizes[d];
    offset += position[d] * stride[d];
  }
  for (int64_t i = 0; i < n;) {
    const int64_t left = layout.sizes[inner] - position[inner];
    const int64_t count = left < n - i ? left : n - i;
    run(i, offset, count, stride[inner]);
    i += count;
    position[inner] += count;
    offset += count * stride[inner];
    for (int d = inner; d > 0 && position[d] == layout.sizes[d]; --d) {
      offset += stride[d - 1] - position[d] * stride[d];
      position[d] = 0;
      ++position[d - 1];
    }
  }
}

template <class T>
void gather(const T* from, const StridedLayout& layout, int operand, int64_t begin, int64_t n, T* to) {
  visit_strided(layout, operand, begin, n, [&](int64_t i, int64_t offset, int64_t count, int64_t stride) {
    for (int64_t j = 0; j < count; ++j) to[i + j] = from[offset + j * stride];
  });
}

template <class T>
void scatter(const T* from, const StridedLayout& layout, int operand, int64_t begin, int64_t n, T* to) {
  visit_strided(layout, operand, begin, n, [&](int64_t i, int64_t offset, int64_t count, int64_t stride) {
    for (int64_t j = 0; j < count; ++j) to[offset + j * stride] = from[i + j];
  });
}

// A formula is a plain struct of numbers, handed over in float64.
template <class F, class A>
FUSED_ML_INLINE F formula_of(const double* constants) {
  constexpr int count = sizeof(F) / sizeof(A);
  static_assert(count <= kMultiTensorConstants);
  A values[count];
  for (int i = 0; i < count; ++i) values[i] = static_cast<A>(constants[i]);
  F formula;
  memcpy(&formula, values, sizeof(F));
  return formula;
}

template <class F, class T, class S>
void update_entry(const MultiTensorEntry& entry, int64_t begin, int64_t end) {
  using A = arithmetic_t<T>;
  const F formula = formula_of<F, A>(entry.constants);
  T* p = static_cast<T*>(entry.operands[0]);
  const T* g = static_cast<const T*>(entry.operands[1]);
  S* state[F::states + 1];
  if (!entry.layout) {
    for (int k = 0; k < F::states; ++k) state[k] = static_cast<S*>(entry.operands[2 + k]) + begin;
    return update_flat(formula, p + begin, g + begin, state, end - begin);
  }
  alignas(64) T flat_p[kGranule], flat_g[kGranule];
  alignas(64) S flat_states[F::states + 1][kGranule];
  for (int k = 0; k < F::states; ++k) state[k] = flat_states[k];
  for (int64_t i = begin; i < end; i += kGranule) {
    const int64_t n = end - i < kGranule ? end - i : kGranule;
    gather(p, *entry.layout, 0, i, n, flat_p);
    gather(g, *entry.layout, 1, i, n, flat_g);
    for (int k = 0; k < F::states; ++k) {
      gather(static_cast<const S*>(entry.operands[2 + k]), *entry.layout, 2 + k, i, n, flat_states[k]);
    }
    update_flat(formula, flat_p, static_cast<const T*>(flat_g), state, n);
    for (int k = 0; k < F::states; ++k) {
      scatter(flat_states[k], *entry.layout, 2 + k, i, n, static_cast<S*>(entry.operands[2 + k]));
    }
    scatter(flat_p, *entry.layout, 0, i, n, p);
  }
}

template <class F, class T, class S>
void update_blocks(void* context, int64_t begin, int64_t end) {
  const MultiTensorArguments& a = *static_cast<const MultiTensorArguments*>(context);
  const int64_t granules = a.first_granule[a.count];
  const int64_t last = end * kBlock < granules ? end * kBlock : granules;
  FlushDenormals flush;
  visit_elements(a, begin * kBlock, last, [](const MultiTensorEntry& entry, int64_t from, int64_t to) {
    update_entry<F, T, S>(entry, from, to);
  });
}

// Sums in float64, a block at a time whoever computes it: no overflow, and the same bits for any thread
// count.
template <class T>
void square_sum_blocks(void* context, int64_t begin, int64_t end) {
  const MultiTensorArguments& a = *static_cast<const MultiTensorArguments*>(context);
  const int64_t granules = a.first_granule[a.count];
  for (int64_t block = begin; block < end; ++block) {
    const int64_t last = (block + 1) * kBlock < granules ? (block + 1) * kBlock : granules;
    double sum = 0;
    visit_elements(a, block * kBlock, last, [&](const MultiTensorEntry& entry, int64_t from, int64_t to) {
      const T* g = static_cast<const T*>(entry.operands[1]);
      if (!entry.layout) {
        sum += square_sum_flat(g + from, to - from);
        return;
      }
      T flat[kGranule];
      for (int64_t i = from; i < to; i += kGranule) {
        const int64_t n = to - i < kGranule ? to - i : kGranule;
        gather(g, *entry.layout, 1, i, n, flat);
        sum += square_sum_flat(flat, n);
      }
    });
    a.block_sums[block] = sum;
  }
}

FUSED_ML_INLINE void for_blocks(const MultiTensorArguments& a, void (*body)(void*, int64_t, int64_t)) {
  parallel_for(divide_up(a.first_granule[a.count], kBlock), kBlocksPerTask, body,
               const_cast<MultiTensorArguments*>(&a));
}

// States are of the parameters' own type, or float32 beside 16-bit parameters.
template <template <class> class F>
void update_with(const MultiTensorArguments& a) {
  const bool wide = a.state_type == DType::float32;
  switch (a.type) {
    case DType::float32:
      return for_blocks(a, &update_blocks<F<float>, float, float>);
    case DType::float64:
      return for_blocks(a, &update_blocks<F<double>, double, double>);
    case DType::bfloat16:
      return for_blocks(
          a, wide ? &update_blocks<F<float>, BFloat16, float> : &update_blocks<F<float>, BFloat16, BFloat16>);
    case DType::float16:
      return for_blocks(a,
                        wide ? &update_blocks<F<float>, Half, float> : &update_blocks<F<float>, Half, Half>);
  }
}

void multi_tensor_square_sum(const MultiTensorArguments& a) {
  switch (a.type) {
    case DType::float32:
      return for_blocks(a, &square_sum_blocks<float>);
    case DType::float64:
      return for_blocks(a, &square_sum_blocks<double>);
    case DType::bfloat16:
      return for_blocks(a, &square_sum_blocks<BFloat16>);
    case DType::float16:
      return for_blocks(a, &square_sum_blocks<Half>);
  }
}

}  // namespace FUSED_ML_NAMESPACE
