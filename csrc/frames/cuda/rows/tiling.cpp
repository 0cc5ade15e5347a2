// How the rowwise frame cuts its rows up: host code.
#include <algorithm>
#include <iterator>

#include "formulas/rows/cross_entropy.h"
#include "formulas/row_blocks.h"
#include "frames/cuda/launch.cuh"

#include "frames/cuda/arguments.h"

namespace fused_ml::cuda {

namespace {

constexpr int kThreads = 128, kManyThreads = 512;
constexpr int kWarpClasses = 1024;         // up to here a row is a warp's, or shares one
constexpr int kThreadClasses = 32;         // up to about here a thread's
constexpr int kBlockClasses = 4096;        // above, a block of many threads
constexpr int64_t kChunkBytes = 32 << 10;  // of a chunk's tile: several blocks on a multiprocessor
constexpr int64_t kTileBytes = 48 << 10;   // of a tile of rows that lie apart by one
constexpr int64_t kSplitClasses = 16384;   // fewer rows than multiprocessors, of more classes: in chunks
constexpr int64_t kStaticBytes = 4 << 10;  // of shared memory that the kernels take besides

int attribute(cudaDeviceAttr which) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) query_failed(error);
  return device_attribute(which, device);
}

bool all_unit(const RowwiseArguments& a, int64_t Stream::* stride) {
  const Stream* streams[] = {&a.x, &a.y, &a.out, &a.out2};
  return std::all_of(std::begin(streams), std::end(streams),
                     [&](const Stream* s) { return !s->data || s->*stride == 1; });
}

bool follow_each_other(const RowwiseArguments& a) {
  const Stream* streams[] = {&a.x, &a.y, &a.out, &a.out2};
  return a.inner == a.rows && all_unit(a, &Stream::by_class) &&
         std::all_of(std::begin(streams), std::end(streams),
                     [&](const Stream* s) { return !s->data || s->by_inner == a.classes; });
}

// Threads a row of few classes. Rows that are a power of two apart in shared memory would meet in its banks:
// then more threads, each with a bank of its own.
int lanes_for(int64_t classes) {
  int lanes = 1;
  while (lanes < kWarp && classes > kThreadClasses * lanes) lanes *= 2;
  const int apart = static_cast<int>(std::min<int64_t>(classes & -classes, kWarp));
  constexpr int kMeet = 4;
  while (lanes < kWarp && apart > kMeet * lanes) lanes *= 2;
  return lanes;
}

Tiling in_chunks(Tiling t, int64_t classes, int64_t chunk) {
  t.classes = static_cast<int>(std::min(classes, chunk));
  t.chunks = (classes + t.classes - 1) / t.classes;
  return t;
}

Tiling along_rows(const RowwiseArguments& a, int64_t element) {
  const int64_t row = a.classes * element;
  Tiling t{a.inner < kThreads ? kWarp : kThreads, 1, true, false, static_cast<int>(a.classes), 1, 0};
  if (row * t.rows > kTileBytes) t.rows = kWarp;
  t.lanes = kThreads / t.rows;
  if (row * t.rows > kTileBytes) t = in_chunks(t, a.classes, kTileBytes / (element * t.rows));
  t.tiles_per_outer = (a.inner + t.rows - 1) / t.rows;
  return t;
}

Tiling along_classes(const RowwiseArguments& a, int64_t element) {
  const int64_t room = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) - kStaticBytes;
  Tiling t{1, kThreads, false, false, 0, 1, 0};
  const bool few = a.rows < attribute(cudaDevAttrMultiProcessorCount) && a.classes > kSplitClasses;
  if (few || a.classes * element > room) return in_chunks(t, a.classes, kChunkBytes / element);
  t.classes = static_cast<int>(a.classes);
  if (a.classes > kBlockClasses) t.lanes = kManyThreads;
  if (a.classes <= kWarpClasses) {
    t.lanes = lanes_for(a.classes);
    t.rows = kThreads / t.lanes;
    t.whole = follow_each_other(a);
  }
  return t;
}

}  // namespace

Tiling choose_tiling(RowwiseOp op, const RowwiseArguments& a) {
  if (op == RowwiseOp::own_class || op == RowwiseOp::own_class_backward)
    return {kThreads, 1, false, false, 1, 1, 0};
  const int64_t element = (a.type == DType::float64 ? 8 : 4) * (a.y.data ? 2 : 1);
  const bool rows_fast =
      !all_unit(a, &Stream::by_class) && all_unit(a, &Stream::by_inner) && a.inner >= kWarp;
  return rows_fast ? along_rows(a, element) : along_classes(a, element);
}

int64_t tiles_of_rows(const Tiling& t, const RowwiseArguments& a) {
  return t.rows_fast ? a.rows / a.inner * t.tiles_per_outer : (a.rows + t.rows - 1) / t.rows;
}

int64_t block_bytes(const Tiling& t, const RowwiseArguments& a) {
  using Largest = formulas::RowBlock<formulas::CrossEntropyClass<double>, double>;
  return t.chunks == 1 ? 0 : a.rows * t.chunks * static_cast<int64_t>(sizeof(Largest));
}

}  // namespace fused_ml::cuda
