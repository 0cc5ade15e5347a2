// A thread's run of elements of one pointwise operand, in whatever type it lies in memory.
#pragma once

#include "frames/cuda/memory.cuh"

namespace fused_ml::cuda {

// kRun elements. kMixed: their type is known at run time alone (float32, bfloat16 or float16); else it is A.
// Fetched as they lie and widened later, so that the loads of all operands are under way together.
template <class A, int kRun, bool kMixed>
class Run {
 public:
  // From element `at` on, `step` apart: 1, or 0 for one element that stands for all.
  __device__ __forceinline__ void fetch(const Elements& e, int64_t at, int64_t step) {
    if (!e.data) return;
    const char* from = static_cast<const char*>(e.data) + at * bytes(e.type);
    if (kRun == 1 || step == 0) {
      fetch_one(from, e.type);
    } else {
      fetch_vectors(from, e.type);
    }
  }

  // The elements in A; `absent` where the operand is not there.
  __device__ __forceinline__ void widen(const Elements& e, int64_t step, A absent, A (&to)[kRun]) const {
    if (!e.data) return fill(absent, to);
    if (kRun == 1 || step == 0) return fill(first(e.type), to);
    if (!kMixed || e.type == DType::float32) {
#pragma unroll
      for (int i = 0; i < kRun; ++i) to[i] = exact(i);
    } else if constexpr (kMixed) {
#pragma unroll
      for (int i = 0; i < kRun; ++i) to[i] = half_word(i, e.type);
    }
  }

  __device__ __forceinline__ static void put(const Elements& e, int64_t at, const A (&from)[kRun]) {
    char* to = static_cast<char*>(const_cast<void*>(e.data)) + at * bytes(e.type);
    if constexpr (!kMixed) {
      put_as<A>(to, from);
    } else {
      if (e.type == DType::float32) return put_as<float>(to, from);
      if (e.type == DType::bfloat16) return put_as<__nv_bfloat16>(to, from);
      put_as<__half>(to, from);
    }
  }

 private:
  static constexpr int kWords = kRun * sizeof(A) / 4;  // for the widest type
  static constexpr int kVectors = kWords / 4;
  uint32_t word[kWords];

  __device__ __forceinline__ static int bytes(DType type) {
    return kMixed ? bytes_of(type) : static_cast<int>(sizeof(A));
  }

  __device__ __forceinline__ void fetch_one(const char* from, DType type) {
    if constexpr (sizeof(A) == 8) {
      const uint2 both = *reinterpret_cast<const uint2*>(from);
      word[0] = both.x;
      word[1] = both.y;
    } else if (!kMixed || type == DType::float32) {
      word[0] = *reinterpret_cast<const uint32_t*>(from);
    } else {
      word[0] = *reinterpret_cast<const uint16_t*>(from);
    }
  }
  __device__ __forceinline__ void fetch_vectors(const char* from, DType type) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      // Half as many vectors hold as many elements of 2 bytes.
      if (kMixed && v >= kVectors / 2 && type != DType::float32) break;
      const uint4 four = reinterpret_cast<const uint4*>(from)[v];
      word[4 * v] = four.x;
      word[4 * v + 1] = four.y;
      word[4 * v + 2] = four.z;
      word[4 * v + 3] = four.w;
    }
  }

  __device__ __forceinline__ A exact(int i) const {
    if constexpr (sizeof(A) == 8) {
      return formulas::bit_cast<A>(static_cast<uint64_t>(word[2 * i + 1]) << 32 | word[2 * i]);
    } else {
      return formulas::bit_cast<A>(word[i]);
    }
  }
  __device__ __forceinline__ float half_word(int i, DType type) const {
    const uint32_t bits = i % 2 ? word[i / 2] >> 16 : word[i / 2] & 0xffffu;
    if (type == DType::bfloat16) return formulas::bit_cast<float>(bits << 16);
    return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
  }
  __device__ __forceinline__ A first(DType type) const {
    if constexpr (kMixed) return type == DType::float32 ? exact(0) : half_word(0, type);
    return exact(0);
  }
  __device__ __forceinline__ static void fill(A value, A (&to)[kRun]) {
#pragma unroll
    for (int i = 0; i < kRun; ++i) to[i] = value;
  }

  template <class T>
  __device__ __forceinline__ static void put_as(char* to, const A (&from)[kRun]) {
    if constexpr (kRun == 1) {
      *reinterpret_cast<T*>(to) = narrow<T>(from[0]);
    } else {
      store_vectors<kRun>(reinterpret_cast<T*>(to), from);
    }
  }
};

}  // namespace fused_ml::cuda
