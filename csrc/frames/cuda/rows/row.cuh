// A row of a tile, as the threads of its group see it: its class and weights, their results combined, and the
// formula's two sweeps over its elements in shared memory.
#pragma once

#include "formulas/row_blocks.h"
#include "frames/cuda/memory.cuh"

namespace fused_ml::cuda {

using namespace formulas;

constexpr int kMostRowThreads = 512;
constexpr int kMostSlots = 128;  // threads of a block whose neighbours are rows; more than warps of any block

__device__ __forceinline__ int64_t target_at(const RowwiseArguments& a, int64_t row) {
  switch (a.target_bytes) {
    case 1:
      return static_cast<const uint8_t*>(a.target)[row];
    case 4:
      return static_cast<const int32_t*>(a.target)[row];
    default:
      return static_cast<const int64_t*>(a.target)[row];
  }
}

// A row's class and weights.
template <class A>
struct Chosen {
  int64_t own = -1;  // -1: ignored, or none
  bool keep = true, bad = false;
  A weight = A(1), loss_scale = A(1), gradient_scale = A(1);

  __device__ __forceinline__ Chosen(const RowwiseTask& task, int64_t row) {
    const RowwiseArguments& a = task.a;
    double scale = a.gradient_scale * (task.numerator.data ? get_number(task.numerator) : 1.0);
    const double denominator = task.denominator.data ? get_number(task.denominator) : 1.0;
    scale = denominator == 0 ? 0 : scale / denominator;
    if (a.target) {
      own = target_at(a, row);
      keep = own != a.ignore_index;
      bad = keep && (own < 0 || own >= a.classes);
      if (!keep || bad) own = -1;
      if (own >= 0 && a.class_weight) weight = static_cast<const A*>(a.class_weight)[own];
    }
    if (a.row_weight) loss_scale = static_cast<const A*>(a.row_weight)[row];
    gradient_scale = static_cast<A>(scale);
    if (a.row_gradient) gradient_scale *= static_cast<const A*>(a.row_gradient)[row];
    gradient_scale *= loss_scale;
  }
};

// Commutative. Named, and not lambdas: each of these takes shared memory of its own.
struct Plus {
  __device__ __forceinline__ double operator()(double a, double b) const { return a + b; }
};
struct Largest {
  template <class A>
  __device__ __forceinline__ A operator()(A a, A b) const {
    return maximum(a, b);
  }
};
struct Smallest {
  __device__ __forceinline__ int operator()(int a, int b) const { return a < b ? a : b; }
};

// Results of all threads of a group combined, in the same order on every run.
class Group {
 public:
  __device__ __forceinline__ explicit Group(const Tiling& tiling) : t(tiling) {}

  __device__ __forceinline__ int row() const {
    return static_cast<int>(threadIdx.x) % (t.rows_fast ? t.rows : blockDim.x) / (t.rows_fast ? 1 : t.lanes);
  }
  __device__ __forceinline__ int lane() const {
    return static_cast<int>(threadIdx.x) / (t.rows_fast ? t.rows : 1) % t.lanes;
  }

  template <class T, class Combine>
  __device__ __forceinline__ T all(T value, const Combine& combine) const {
    if (!t.rows_fast) {
      const int width = t.lanes < kWarp ? t.lanes : kWarp;
      for (int offset = width / 2; offset > 0; offset /= 2)
        value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
    }
    if (t.lanes == 1 || (!t.rows_fast && t.lanes <= kWarp)) return value;
    // The group is the block, of whose warps each has its value in all lanes; or (rows_fast) the threads that
    // are `rows` apart, which is whole warps.
    FUSED_ML_SHARED(T[kMostSlots], slots);
    const int thread = static_cast<int>(threadIdx.x), apart = t.rows_fast ? t.rows : 1;
    const int count = static_cast<int>(blockDim.x) / (t.rows_fast ? 1 : kWarp);
    if (t.rows_fast || thread % kWarp == 0) slots[t.rows_fast ? thread : thread / kWarp] = value;
    __syncthreads();
    const int first = t.rows_fast ? thread % t.rows : 0;
    value = slots[first];
    for (int at = first + apart; at < count; at += apart) value = combine(value, slots[at]);
    __syncthreads();  // before the next call writes
    return value;
  }

 private:
  const Tiling& t;
};

// One row's part of a tile, seen by one thread of its group.
template <class F, class A>
class TileRow {
 public:
  using Reference = typename F::Reference;
  // Where map reads the input, its element is still there and the term is computed again.
  static constexpr bool kTermsInPlace = F::kKeepTerms && !F::kMapReadsInput;

  __device__ __forceinline__ TileRow(const F& formula, const RowwiseArguments& arguments,
                                     const Tiling& tiling, int64_t first_class, int class_count)
      : f(formula),
        a(arguments),
        group(tiling),
        lanes(tiling.lanes),
        lane(group.lane()),
        classes(class_count),
        w(F::kSide ? static_cast<const A*>(a.class_weight) + first_class : nullptr) {}

  // x, y: this row's elements in the tiles, `step` apart.
  __device__ __forceinline__ void look_at(A* row_x, A* row_y, int class_step) {
    x = row_x;
    y = row_y;
    step = class_step;
  }

  // own: the class left out, counted from the tile's first; none if not among its classes. Called by all
  // threads of the block.
  __device__ __forceinline__ RowBlock<F, A> reduce(int64_t own, bool rows_here) {
    RowBlock<F, A> s;
    if constexpr (F::kPeak) find_peak(rows_here, s);
    const int64_t left_out = F::kOwn == Own::peak ? s.own : F::kOwn == Own::target ? own : -1;
    const bool there = rows_here && left_out >= 0 && left_out < classes;
    A own_y = A(0);
    if (there) {
      s.own_input = x[left_out * step];
      if (F::kTwoInputs) own_y = y[left_out * step];
      s.own_logit = f.logit(f.key(s.own_input));
    }
    __syncthreads();  // before terms take the inputs' place
    const A peak = f.logit(s.peak);
    const Reference reference = Reference::make(peak);
    if (there && F::kOwn != Own::none) {
      const Parts<A> term = parts(f.term(reference, s.own_input, own_y, true));
      s.own_term = static_cast<double>(term.value) + static_cast<double>(term.rest);
      if constexpr (F::kSide) s.own_side_weight = f.weigh(w[left_out], own_y);
    }
    sum_terms(reference, peak, there ? static_cast<int>(left_out) : -1, rows_here, s);
    return s;
  }

  // The row's outputs into the tile, over x and y. reduced: reduce has been called for it; own: its class
  // that map_own gives, counted as for reduce.
  __device__ __forceinline__ void map(const RowBlock<F, A>& s, double factor, const RowResult<double>& result,
                                      const Chosen<A>& chosen, int64_t own, bool reduced) const {
    const RowCoefficients<A> c{static_cast<A>(result.peak), static_cast<A>(result.scale * factor),
                               static_cast<A>(result.offset), static_cast<A>(result.log_total)};
    const Reference reference = Reference::make(f.logit(s.peak));
    const A missing = chosen.bad ? Constants<A>::infinity - Constants<A>::infinity : A(0);
    for (int j = lane; j < classes; j += lanes) {
      const A input = x[j * step], second = F::kTwoInputs ? y[j * step] : A(0);
      const A weight = F::kSide ? w[j] : A(0);
      A term = A(0);
      if constexpr (F::kKeepTerms)
        term = kTermsInPlace && reduced ? input : parts(f.term(reference, input, second, true)).value;
      A out = f.map(input, second, weight, term, c);
      if constexpr (F::kOwn != Own::none) {
        if (j == own) out = f.map_own(s.own_input, static_cast<A>(result.own));
      }
      const bool written = chosen.keep && !chosen.bad;
      if constexpr (F::kSecond) y[j * step] = written ? f.map_second(input, second, weight, c) : missing;
      x[j * step] = written ? out : missing;
    }
  }

 private:
  const F& f;
  const RowwiseArguments& a;
  const Group group;
  const int lanes, lane, classes;
  const A* const w;
  A *x = nullptr, *y = nullptr;
  int step = 1;

  // torch's argmax is the first NaN if there is one; the row is NaN all the same.
  __device__ __forceinline__ void find_peak(bool rows_here, RowBlock<F, A>& s) const {
    const bool where = F::kOwn == Own::peak || a.predicted;
    A peak = -Constants<A>::infinity;
    int first = 0x7fffffff;
    bool nan = false;
    for (int j = lane; rows_here && j < classes; j += lanes) {
      const A key = f.key(x[j * step]);
      const bool is_nan = key != key;
      if (is_nan ? !nan : !nan && (key > peak || first > classes)) first = j;
      nan = nan || is_nan;
      peak = maximum(peak, key);
    }
    s.peak = group.all(peak, Largest());
    if (!where) return;
    const bool any_nan = group.all(nan ? 0 : 1, Smallest()) == 0;
    const bool mine = any_nan ? nan : peak == s.peak;
    first = group.all(mine ? first : 0x7fffffff, Smallest());
    s.own = first < classes ? first : -1;
    if (any_nan) s.peak = Constants<A>::infinity;  // this chunk is the row's first
  }

  __device__ __forceinline__ void sum_terms(const Reference& reference, A peak, int left_out, bool rows_here,
                                            RowBlock<F, A>& s) const {
    A sum = A(0), rest = A(0);
    double side = 0, side_weight = 0;
    for (int j = lane; rows_here && j < classes; j += lanes) {
      const A input = x[j * step], second = F::kTwoInputs ? y[j * step] : A(0);
      const Parts<A> term = parts(f.term(reference, input, second, true));
      if (j != left_out) accumulate(sum, rest, term);
      if constexpr (F::kSide) {
        const A u = f.weigh(w[j], second);
        if (u != A(0)) side += static_cast<double>(u * (peak - f.logit(f.key(input))));
        if (F::kOwn != Own::peak || j != left_out) side_weight += static_cast<double>(u);
      }
      if constexpr (kTermsInPlace) x[j * step] = term.value;
    }
    s.sum = group.all(static_cast<double>(sum) + static_cast<double>(rest), Plus());
    if constexpr (F::kSide) {
      s.side = group.all(side, Plus());
      s.side_weight = group.all(side_weight, Plus());
    }
  }
};

}  // namespace fused_ml::cuda
