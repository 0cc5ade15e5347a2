// The rowwise frame on CUDA: a tile of rows is read once into shared memory, reduced, mapped and written. No
// mathematics, no torch. What a formula gives: ../cpu/rowwise.h.
//
// A group of `lanes` threads takes a row. Rows too long for a tile, and few rows of many classes, are taken
// in chunks of classes by two kernels: the first leaves a RowBlock for every chunk, the second merges those
// of its row and maps. Sums are float pairs (sum, rest) within a thread and float64 above: the order is
// fixed.
#pragma once

#include "../formulas/rowwise_blocks.h"
#include "reduce.cuh"
#include "rowwise_tile.cuh"

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
      const Parts<A> term = f.term(reference, s.own_input, own_y, true);
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
        term = kTermsInPlace && reduced ? input : f.term(reference, input, second, true).value;
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
      const Parts<A> term = f.term(reference, input, second, true);
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

// Where this block and thread work.
struct Place {
  int64_t tile, row0, row, chunk, first_class;  // row: this thread's
  int rows, classes;
  bool here;  // whether there is such a row

  __device__ __forceinline__ Place(const RowwiseTask& task, int64_t block) {
    const RowwiseArguments& a = task.a;
    const Tiling& t = task.t;
    tile = task.first_tile + block / t.chunks;
    chunk = block % t.chunks;
    int64_t last = a.rows;
    if (t.rows_fast) {
      const int64_t outer = tile / t.tiles_per_outer;
      row0 = outer * a.inner + tile % t.tiles_per_outer * t.rows;
      last = (outer + 1) * a.inner;
    } else {
      row0 = tile * t.rows;
    }
    rows = static_cast<int>(last - row0 < t.rows ? last - row0 : t.rows);
    first_class = chunk * t.classes;
    const int64_t left = a.classes - first_class;
    classes = static_cast<int>(left < t.classes ? left : t.classes);
    const int in_tile = Group(t).row();
    here = in_tile < rows;
    row = row0 + (here ? in_tile : 0);
  }
  __device__ __forceinline__ int in_tile() const { return static_cast<int>(row - row0); }
};

// A tile of each operand, loaded, and this thread's row in it.
template <class F, class A>
struct Loaded {
  Tile<A> x, y;
  TileRow<F, A> row;

  __device__ __forceinline__ Loaded(const F& f, const RowwiseTask& task, const Place& p, A* memory)
      : x(task.a, task.t, memory, p.row0, p.rows, p.first_class, p.classes),
        y(task.a, task.t, memory + Tile<A>::elements(task.t), p.row0, p.rows, p.first_class, p.classes),
        row(f, task.a, task.t, p.first_class, p.classes) {
    const RowwiseArguments& a = task.a;
    x.load(a.x, a.type);
    if (F::kTwoInputs) y.load(a.y, a.type);
    __syncthreads();
    A* const row_x = memory + x.start(a.x, a.type, p.in_tile());
    A* const row_y =
        memory + Tile<A>::elements(task.t) + (F::kTwoInputs ? y.start(a.y, a.type, p.in_tile()) : 0);
    row.look_at(row_x, row_y, x.step());
  }

  // By all threads of the block.
  __device__ __forceinline__ void store(const RowwiseArguments& a) const {
    __syncthreads();
    if (a.out.data) x.store(a.x, a.type, a.out, a.out_type);
    if (F::kSecond && a.out2.data) y.store(a.y, a.type, a.out2, a.out_type);
  }
};

template <class A>
__device__ __forceinline__ RowSums<double> sums_for(const Chosen<A>& chosen, double peak) {
  RowSums<double> s{};
  s.peak = peak;
  s.own_weight = chosen.weight;
  s.gradient_scale = chosen.gradient_scale;
  s.own_logit = -Constants<double>::infinity;
  return s;
}

// The row's numbers: by one thread of its group. Returns the loss as it is summed.
template <class A>
__device__ __forceinline__ double put_results(const RowwiseArguments& a, int64_t row, const Chosen<A>& chosen,
                                              const RowResult<double>& result, int64_t predicted) {
  double loss = chosen.keep ? result.loss * chosen.loss_scale : 0.0;
  if (chosen.bad) loss = Constants<double>::infinity - Constants<double>::infinity;
  if (a.loss) static_cast<A*>(a.loss)[row] = static_cast<A>(loss);
  if (a.lse) static_cast<A*>(a.lse)[row] = static_cast<A>(result.lse);
  if (a.predicted) a.predicted[row] = predicted < 0 ? 0 : predicted;
  return loss;
}

// By all threads of the block: what the first threads of its rows' groups have as `loss`.
__device__ __forceinline__ void put_partial(const RowwiseTask& task, int64_t tile, double loss) {
  if (!task.partials) return;
  loss = block_sum<kMostRowThreads>(loss);
  if (threadIdx.x == 0) task.partials[tile] = loss;
}

// Whole rows.
template <class F, class A>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    rowwise_kernel(const __grid_constant__ RowwiseTask task, const F f) {
  FUSED_ML_DYNAMIC_SHARED(A, memory);
  const RowwiseArguments& a = task.a;
  const Place p(task, blockIdx.x);
  Loaded<F, A> tiles(f, task, p, memory);
  const Chosen<A> chosen(task, p.row);
  const RowBlock<F, A> block = tiles.row.reduce(chosen.own, p.here);
  const double peak = F::kPeak ? static_cast<double>(f.logit(block.peak)) : 0.0;
  RowSums<double> s = sums_for(chosen, peak);
  add_block<F>(block, BlockScale{0.0, 1.0}, true, s);
  if (F::kOwn == Own::target && chosen.own >= 0) s.own_logit = block.own_logit;
  RowResult<double> result = f.finish(s);
  result.peak = peak;
  const int64_t own = F::kOwn == Own::peak ? block.own : chosen.own;
  if (p.here && (a.out.data || a.out2.data)) tiles.row.map(block, 1.0, result, chosen, own, true);
  double loss = 0;
  if (p.here && Group(task.t).lane() == 0) loss = put_results(a, p.row, chosen, result, block.own);
  put_partial(task, p.tile, loss);
  tiles.store(a);
}

// A chunk of rows' classes: its RowBlocks.
template <class F, class A>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    rowwise_reduce_kernel(const __grid_constant__ RowwiseTask task, const F f) {
  FUSED_ML_DYNAMIC_SHARED(A, memory);
  const Place p(task, blockIdx.x);
  Loaded<F, A> tiles(f, task, p, memory);
  const int64_t own = Chosen<A>(task, p.row).own;
  const RowBlock<F, A> block = tiles.row.reduce(own < 0 ? -1 : own - p.first_class, p.here);
  if (p.here && Group(task.t).lane() == 0)
    static_cast<RowBlock<F, A>*>(task.blocks)[p.row * task.t.chunks + p.chunk] = block;
}

// The chunks of a row merged: what map and the results need.
template <class F, class A>
struct MergedRow {
  RowResult<double> result;
  int64_t best = 0, own = -1;  // the chunk that holds the peak; the class left out of the sum

  __device__ __forceinline__ MergedRow(const F& f, const RowBlock<F, A>* blocks, int64_t chunks, int classes,
                                       const Chosen<A>& chosen) {
    for (int64_t b = 1; b < chunks; ++b) {
      if (blocks[b].peak > blocks[best].peak) best = b;
    }
    const double peak = F::kPeak ? static_cast<double>(f.logit(blocks[best].peak)) : 0.0;
    RowSums<double> s = sums_for(chosen, peak);
    for (int64_t b = 0; b < chunks; ++b)
      add_block<F>(blocks[b], scale_of(f, blocks[b], peak, b == best), F::kOwn == Own::target || b == best,
                   s);
    if (F::kOwn == Own::target && chosen.own >= 0) s.own_logit = blocks[chosen.own / classes].own_logit;
    result = f.finish(s);
    result.peak = peak;
    own = F::kOwn == Own::peak ? predicted(blocks, classes) : chosen.own;
  }
  __device__ __forceinline__ int64_t predicted(const RowBlock<F, A>* blocks, int classes) const {
    return blocks[best].own < 0 ? -1 : best * classes + blocks[best].own;
  }
};

// A chunk of rows' classes: its outputs. The blocks of the first chunk write the rows' results.
template <class F, class A>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    rowwise_map_kernel(const __grid_constant__ RowwiseTask task, const F f, bool outputs) {
  FUSED_ML_DYNAMIC_SHARED(A, memory);
  const RowwiseArguments& a = task.a;
  const Tiling& t = task.t;
  const Place p(task, outputs ? blockIdx.x : blockIdx.x * t.chunks);
  const Chosen<A> chosen(task, p.row);
  const RowBlock<F, A>* const blocks = static_cast<const RowBlock<F, A>*>(task.blocks) + p.row * t.chunks;
  const MergedRow<F, A> merged(f, blocks, t.chunks, t.classes, chosen);
  double loss = 0;
  if (p.chunk == 0 && p.here && Group(t).lane() == 0)
    loss = put_results(a, p.row, chosen, merged.result, merged.predicted(blocks, t.classes));
  if (p.chunk == 0) put_partial(task, p.tile, loss);
  if (!outputs) return;
  Loaded<F, A> tiles(f, task, p, memory);
  const RowBlock<F, A>& block = blocks[p.chunk];
  const double factor = scale_of(f, block, merged.result.peak, p.chunk == merged.best).factor;
  if (p.here) tiles.row.map(block, factor, merged.result, chosen, merged.own - p.first_class, false);
  tiles.store(a);
}

}  // namespace fused_ml::cuda
