// The multi_tensor frame: one formula over every parameter of a model, in one parallel region.
//
// The tensors lie on one axis, each rounded up to whole granules of 256 elements; a block of 16 granules is
// the unit of work, so that threads share the elements evenly whatever the tensors' sizes, and a partition of
// the blocks cuts no vector: the same bits for any number of threads. A tensor whose operands lie in memory
// in one order is updated in place; any other is copied granule by granule to flat buffers and back, so there
// is one arithmetic loop.
#pragma once

#include "update_loops.h"

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
    if (stride == 1) {
      memcpy(to + i, from + offset, count * sizeof(T));
      return;
    }
    for (int64_t j = 0; j < count; ++j) to[i + j] = from[offset + j * stride];
  });
}

template <class T>
void scatter(const T* from, const StridedLayout& layout, int operand, int64_t begin, int64_t n, T* to) {
  visit_strided(layout, operand, begin, n, [&](int64_t i, int64_t offset, int64_t count, int64_t stride) {
    if (stride == 1) {
      memcpy(to + offset, from + i, count * sizeof(T));
      return;
    }
    for (int64_t j = 0; j < count; ++j) to[offset + j * stride] = from[i + j];
  });
}

// A type of so many bytes, to be moved: as unsigned numbers gcc would insert elements into vectors one by
// one.
template <class Body>
FUSED_ML_INLINE void with_item(size_t bytes, const Body& body) {
  if (bytes == 2) return body(static_cast<BFloat16*>(nullptr));
  if (bytes == 4) return body(static_cast<float*>(nullptr));
  body(static_cast<double*>(nullptr));
}

FUSED_ML_INLINE size_t size_of(DType type) {
  return type == DType::float64 ? 8 : type == DType::float32 ? 4 : 2;
}

// An update over a list of tensors.
class UpdateFrame {
 public:
  UpdateFrame(const UpdateLoops& loops, const MultiTensorArguments& a)
      : a_(a), states_(loops.states), loop_(loop_of(loops, a)) {}

  void run_blocks(int64_t begin, int64_t end) const {
    const int64_t granules = a_.first_granule[a_.count];
    const int64_t last = end * kBlock < granules ? end * kBlock : granules;
    FlushDenormals flush;
    visit_elements(a_, begin * kBlock, last, [&](const MultiTensorEntry& entry, int64_t from, int64_t to) {
      a_.type == DType::float64 ? run_entry<double>(entry, from, to) : run_entry<float>(entry, from, to);
    });
  }

 private:
  static constexpr int kMaxStates = kMultiTensorOperands - 2;
  static UpdateLoops::Loop loop_of(const UpdateLoops& loops, const MultiTensorArguments& a) {
    if (a.type == DType::float64) return loops.float64;
    if (a.type != DType::bfloat16) return loops.float32;
    return a.state_type == DType::float32 ? loops.bfloat16_wide : loops.bfloat16;
  }

  size_t item_size(int operand) const { return size_of(operand < 2 ? a_.type : a_.state_type); }

  template <class A>
  void run_entry(const MultiTensorEntry& entry, int64_t begin, int64_t end) const {
    A constants[kMultiTensorConstants];
    for (int i = 0; i < kMultiTensorConstants; ++i) constants[i] = static_cast<A>(entry.constants[i]);
    if (entry.layout) return run_strided(entry, constants, begin, end);
    void* operands[kMultiTensorOperands];
    for (int k = 0; k < 2 + states_; ++k) {
      operands[k] = static_cast<char*>(entry.operands[k]) + begin * item_size(k);
    }
    run_flat(constants, operands, end - begin);
  }

  // Granule by granule, in copies.
  void run_strided(const MultiTensorEntry& entry, const void* constants, int64_t begin, int64_t end) const {
    alignas(64) char flat[kMultiTensorOperands * kGranule * sizeof(double)];
    void* operands[kMultiTensorOperands];
    char* next = flat;
    for (int k = 0; k < 2 + states_; ++k) {
      operands[k] = next;
      next += kGranule * item_size(k);
    }
    for (int64_t i = begin; i < end; i += kGranule) {
      const int64_t n = end - i < kGranule ? end - i : kGranule;
      for (int k = 0; k < 2 + states_; ++k) {
        with_item(item_size(k), [&](auto* item) {
          using T = std::remove_pointer_t<decltype(item)>;
          gather(static_cast<const T*>(entry.operands[k]), *entry.layout, k, i, n,
                 static_cast<T*>(operands[k]));
        });
      }
      run_flat(constants, operands, n);
      for (int k = 0; k < 2 + states_; ++k) {
        if (k == 1) continue;
        with_item(item_size(k), [&](auto* item) {
          using T = std::remove_pointer_t<decltype(item)>;
          scatter(static_cast<const T*>(operands[k]), *entry.layout, k, i, n,
                  static_cast<T*>(entry.operands[k]));
        });
      }
    }
  }

  void run_flat(const void* constants, void* const* operands, int64_t n) const {
    if (a_.type == DType::float16) return run_halves(constants, operands, n);
    loop_(constants, operands[0], operands[1], operands + 2, n);
  }

  // Through floats, a granule at a time; states of float32 stay where they are.
  void run_halves(const void* constants, void* const* operands, int64_t n) const {
    alignas(64) float wide[kMultiTensorOperands][kGranule];
    const int halves = a_.state_type == DType::float16 ? 2 + states_ : 2;
    for (int64_t i = 0; i < n; i += kGranule) {
      const int64_t count = n - i < kGranule ? n - i : kGranule;
      void* states[kMaxStates];
      for (int k = 0; k < halves; ++k) widen(static_cast<const Half*>(operands[k]) + i, count, wide[k]);
      for (int k = 0; k < states_; ++k) {
        states[k] = 2 + k < halves ? wide[2 + k] : static_cast<float*>(operands[2 + k]) + i;
      }
      loop_(constants, wide[0], wide[1], states, count);
      for (int k = 0; k < halves; ++k) {
        if (k != 1) narrow(wide[k], count, static_cast<Half*>(operands[k]) + i);
      }
    }
  }

  const MultiTensorArguments& a_;
  const int states_;
  const UpdateLoops::Loop loop_;
};

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

void run_update(const UpdateLoops& loops, const MultiTensorArguments& a) {
  UpdateFrame frame(loops, a);
  const auto body = [](void* context, int64_t begin, int64_t end) {
    static_cast<const UpdateFrame*>(context)->run_blocks(begin, end);
  };
  parallel_for(divide_up(a.first_granule[a.count], kBlock), kBlocksPerTask, body, &frame);
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
