// Between the types in memory and the arithmetic type, where a frame's data comes in and goes out. A frame
// itself sees the arithmetic type alone, so that each formula is compiled once for it and not once for every
// element type.
#pragma once

#include "half_blocks.h"
#include "vector_loops.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
constexpr DType arithmetic_dtype = sizeof(A) == 8 ? DType::float64 : DType::float32;

inline size_t bytes_of(DType type) { return type == DType::float64 ? 8 : type == DType::float32 ? 4 : 2; }

template <class T, class A>
FUSED_ML_INLINE void load_run(const T* __restrict from, int64_t count, A* __restrict to) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = load(from + i);
}
inline void load_run(const Half* from, int64_t count, float* to) { widen(from, count, to); }

template <class T, class A>
FUSED_ML_INLINE void store_run(const A* __restrict from, int64_t count, T* __restrict to) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) store(to + i, from[i]);
}
inline void store_run(const float* from, int64_t count, Half* to) { narrow(from, count, to); }

// kStep elements: as vectors, where gcc would call memmove, or build them from scalars.
template <class From, class To>
FUSED_ML_INLINE void copy_step(const From* __restrict from, To* __restrict to) {
  if constexpr (std::is_same_v<From, To>) {
    __builtin_memcpy(to, from, kStep * sizeof(To));
  } else if constexpr (std::is_same_v<From, Half>) {
    widen(from, kStep, to);
  } else if constexpr (std::is_same_v<To, Half> && std::is_same_v<From, float>) {
    narrow(from, kStep, to);
  } else {
    FUSED_ML_LANES
    for (int l = 0; l < kStep; ++l) store(to + l, load(from + l));
  }
}

template <class T, class A>
void load_strided(const T* __restrict from, int64_t step, int64_t count, A* __restrict to) {
  if (step == 1) return load_run(from, count, to);
  if (step == 0) {
    const A value = count ? static_cast<A>(load(from)) : A(0);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) to[i] = value;
    return;
  }
  for (int64_t i = 0; i < count; ++i) to[i] = load(from + i * step);
}

template <class T, class A>
void store_strided(const A* __restrict from, int64_t count, T* __restrict to, int64_t step) {
  if (step == 1) return store_run(from, count, to);
  for (int64_t i = 0; i < count; ++i) store(to + i * step, from[i]);
}

// An output of so many bytes is out of the caches before anyone reads it. It is written past them, in whole
// lines, which then need not be fetched first.
constexpr int64_t kPastCaches = int64_t{32} << 20;
constexpr int64_t kLine = 64;  // bytes

inline bool line_starts_at(const void* p) { return reinterpret_cast<uintptr_t>(p) % kLine == 0; }

// kStep elements, of one line or of several.
template <class T, class A>
FUSED_ML_INLINE void store_step_past(const A* __restrict from, T* __restrict to) {
  alignas(kLine) T step[kStep];
  copy_step(from, step);
  const auto each = [&](auto* out, const auto& stream) {  // of the widest vectors: each is a store
    using Vector = std::remove_pointer_t<decltype(out)>;
    constexpr size_t count = kStep * sizeof(T) / sizeof(Vector);
    for (size_t i = 0; i < count; ++i) {
      stream(out + i, reinterpret_cast<const Vector*>(step)[i]);
    }
  };
#ifdef __SSE2__
#if FUSED_ML_VECTOR_BYTES == 64
  if constexpr (sizeof(step) % 64 == 0) {
    return each(reinterpret_cast<__m512i*>(to), [](__m512i* p, __m512i v) { _mm512_stream_si512(p, v); });
  }
#endif
#if FUSED_ML_VECTOR_BYTES >= 32
  each(reinterpret_cast<__m256i*>(to), [](__m256i* p, __m256i v) { _mm256_stream_si256(p, v); });
#else
  each(reinterpret_cast<__m128i*>(to), [](__m128i* p, __m128i v) { _mm_stream_si128(p, v); });
#endif
#else
  memcpy(to, step, sizeof(step));
#endif
}
// Between writing so and anyone's reading.
inline void finish_past() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

// Calls body(typed pointer) for memory of an element type whose arithmetic type is A.
template <class A, class Body>
FUSED_ML_INLINE void with_type(DType type, const void* data, const Body& body) {
  void* p = const_cast<void*>(data);
  if constexpr (sizeof(A) == 8) {
    body(static_cast<double*>(p));
  } else {
    if (type == DType::float32) return body(static_cast<float*>(p));
    if (type == DType::bfloat16) return body(static_cast<BFloat16*>(p));
    body(static_cast<Half*>(p));
  }
}

// Of a row's first class, in elements.
inline int64_t offset_of(const Stream& s, int64_t inner, int64_t row) {
  // Mostly there is one outer index: a division takes longer than a line of floats.
  const int64_t outer = row < inner ? 0 : row / inner;
  return outer * s.by_outer + (row - outer * inner) * s.by_inner;
}
inline const char* element(const Stream& s, DType type, int64_t inner, int64_t row) {
  return static_cast<const char*>(s.data) + offset_of(s, inner, row) * static_cast<int64_t>(bytes_of(type));
}

}  // namespace FUSED_ML_NAMESPACE
