// A tile of rows in shared memory, in the arithmetic type: how it comes in from memory of any strides and
// goes back. Runs of 16 bytes wherever a segment of the tile lies side by side in memory.
#pragma once

#include "frames/cuda/memory.cuh"

namespace fused_ml::cuda {

// One operand's tile. Segments are what may lie side by side: the whole tile, the classes of a row, or
// (rows_fast) the rows of a class. A segment starts in shared memory as far from 16-byte alignment as it does
// in global memory, so that runs are aligned in both.
template <class A>
class Tile {
 public:
  static constexpr int kRun = kVectorBytes / sizeof(A);

  // Shared elements that a tile takes.
  __host__ __device__ static int elements(const Tiling& t) {
    if (t.whole) return padded(t.rows * t.classes);
    return t.rows_fast ? t.classes * padded(t.rows) : t.rows * padded(t.classes);
  }

  // Rows [row, row + rows), classes [first_class, first_class + classes) of a stream; `memory` is 16-byte
  // aligned.
  __device__ __forceinline__ Tile(const RowwiseArguments& arguments, const Tiling& tiling, A* memory,
                                  int64_t row, int row_count, int64_t first_class, int class_count)
      : a(arguments),
        t(tiling),
        data(memory),
        row0(row),
        rows(row_count),
        class0(first_class),
        classes(class_count),
        pitch(padded(t.rows_fast ? t.rows : t.classes)) {}

  // Where class c of the tile's row `r` lies: data[start(...) + c * step()].
  __device__ __forceinline__ int start(const Stream& s, DType type, int r) const {
    if (t.whole) return shift(s, type, 0) + r * classes;
    return t.rows_fast ? shift(s, type, 0) + r : shift(s, type, r) + r * pitch;
  }
  __device__ __forceinline__ int step() const { return t.rows_fast ? pitch : 1; }

  // By all threads of the block.
  __device__ void load(const Stream& s, DType type) const {
    each_segment(s, type, [&](auto* memory, int at, int count, int64_t by_element, int thread, int threads) {
      load_segment(memory, at, count, by_element, thread, threads);
    });
  }
  // From the tile of a stream `from` of type `from_type`, to a stream.
  __device__ void store(const Stream& from, DType from_type, const Stream& s, DType type) const {
    const int moved = t.whole || t.rows_fast ? shift(from, from_type, 0) - shift(s, type, 0) : 0;
    each_segment(s, type, [&](auto* memory, int at, int count, int64_t by_element, int thread, int threads) {
      int from_at = at + moved;
      if (!t.whole && !t.rows_fast) {
        const int r = at / pitch;
        from_at = r * pitch + shift(from, from_type, r);
      }
      store_segment(memory, from_at, count, by_element, thread, threads);
    });
  }

 private:
  const RowwiseArguments& a;
  const Tiling& t;
  A* const data;
  const int64_t row0;
  const int rows;
  const int64_t class0;
  const int classes, pitch;

  __host__ __device__ static int padded(int count) { return (count + 2 * (kRun - 1)) / kRun * kRun; }

  __device__ __forceinline__ int64_t offset(const Stream& s, int segment) const {
    const int64_t row = t.rows_fast || t.whole ? row0 : row0 + segment;
    const int64_t in_row = class0 + (t.rows_fast ? segment : 0);
    return row / a.inner * s.by_outer + row % a.inner * s.by_inner + in_row * s.by_class;
  }
  // Elements from the last 16-byte boundary of A to the segment.
  __device__ __forceinline__ int shift(const Stream& s, DType type, int segment) const {
    const int64_t elements = static_cast<int64_t>(reinterpret_cast<uintptr_t>(s.data) / bytes_of(type));
    return static_cast<int>((elements + offset(s, segment)) & (kRun - 1));
  }

  template <class Body>
  __device__ __forceinline__ void each_segment(const Stream& s, DType type, const Body& body) const {
    const int segments = t.whole ? 1 : t.rows_fast ? classes : rows;
    const int count = t.whole ? rows * classes : t.rows_fast ? rows : classes;
    const int64_t by_element = t.whole ? 1 : t.rows_fast ? s.by_inner : s.by_class;
    int threads = 1;  // of a segment
    while (threads < static_cast<int>(blockDim.x) && threads * kRun < count) threads *= 2;
    const int first = static_cast<int>(threadIdx.x) / threads,
              thread = static_cast<int>(threadIdx.x) % threads;
    const int together = static_cast<int>(blockDim.x) / threads;
    const int shift0 = shift(s, type, 0);
    for (int segment = first; segment < segments; segment += together) {
      const int at = segment * pitch + (t.rows_fast || t.whole ? shift0 : shift(s, type, segment));
      const int64_t from = offset(s, segment);
      switch (type) {
        case DType::float32:
          body(static_cast<const float*>(s.data) + from, at, count, by_element, thread, threads);
          break;
        case DType::float64:
          body(static_cast<const double*>(s.data) + from, at, count, by_element, thread, threads);
          break;
        case DType::bfloat16:
          body(static_cast<const __nv_bfloat16*>(s.data) + from, at, count, by_element, thread, threads);
          break;
        case DType::float16:
          body(static_cast<const __half*>(s.data) + from, at, count, by_element, thread, threads);
          break;
      }
    }
  }

  // Elements of `count` before the first 16-byte boundary; all of them where they do not lie side by side.
  template <class T>
  __device__ __forceinline__ static int head_of(const T* memory, int count, int64_t by_element) {
    constexpr int kSize = Vector<T>::size;
    const int past = static_cast<int>(reinterpret_cast<uintptr_t>(memory) / sizeof(T) % kSize);
    const int head = (kSize - past) % kSize;
    return by_element != 1 || head > count ? count : head;
  }

  template <class T>
  __device__ __forceinline__ void load_segment(const T* memory, int at, int count, int64_t by_element,
                                               int thread, int threads) const {
    constexpr int kSize = Vector<T>::size;
    A* const to = data + at;
    int head = head_of(memory, count, by_element);
    if ((at + head) % kRun != 0) head = count;
    const int runs = (count - head) / kSize;
    for (int i = thread; i < runs; i += threads) {
      A values[kSize];
      load_vectors<kSize>(memory + head + i * kSize, values);
      put_run(to + head + i * kSize, values);
    }
    for (int i = thread; i < count - runs * kSize; i += threads) {
      const int j = i < head ? i : i + runs * kSize;
      to[j] = static_cast<A>(widen(memory[j * by_element]));
    }
  }

  template <class T>
  __device__ __forceinline__ void store_segment(const T* memory, int at, int count, int64_t by_element,
                                                int thread, int threads) const {
    constexpr int kSize = Vector<T>::size;
    T* const to = const_cast<T*>(memory);
    const A* const from = data + at;
    const int head = head_of(memory, count, by_element);
    const bool aligned = (at + head) % kRun == 0;
    const int runs = (count - head) / kSize;
    for (int i = thread; i < runs; i += threads) {
      A values[kSize];
      get_run(from + head + i * kSize, aligned, values);
      store_vectors(to + head + i * kSize, values);
    }
    for (int i = thread; i < count - runs * kSize; i += threads) {
      const int j = i < head ? i : i + runs * kSize;
      to[j * by_element] = narrow<T>(from[j]);
    }
  }

  // A run of memory in shared memory: of several runs of A, or of a part of one.
  template <int N>
  __device__ __forceinline__ static void put_run(A* to, const A (&values)[N]) {
    if constexpr (N % kRun == 0) {
      store_vectors(to, values);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) to[i] = values[i];
    }
  }
  template <int N>
  __device__ __forceinline__ static void get_run(const A* from, bool aligned, A (&values)[N]) {
    if constexpr (N % kRun == 0) {
      if (aligned) return load_vectors<N>(from, values);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = from[i];
  }
};

}  // namespace fused_ml::cuda
