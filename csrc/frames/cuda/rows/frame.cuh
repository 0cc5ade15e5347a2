// The rowwise frame on CUDA: a tile of rows is read once into shared memory, reduced, mapped and written. No
// mathematics, no torch. What a formula gives: ../cpu/rowwise.h.
//
// A group of `lanes` threads takes a row. Rows too long for a tile, and few rows of many classes, are taken
// in chunks of classes by two kernels: the first leaves a RowBlock for every chunk, the second merges those
// of its row and maps. Sums are float pairs (sum, rest) within a thread and float64 above: the order is
// fixed.
#pragma once

#include "frames/cuda/reduce.cuh"
#include "row.cuh"
#include "tile.cuh"

namespace fused_ml::cuda {

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
