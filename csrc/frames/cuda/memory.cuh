// Between memory and the arithmetic type: element types, and vectors of 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "formulas/portable.h"
#include "arguments.h"
#include "launch.cuh"

namespace fused_ml::cuda {

constexpr int kVectorBytes = 16;

__host__ __device__ constexpr int bytes_of(DType type) {
  return type == DType::float64 ? 8 : type == DType::float32 ? 4 : 2;
}

// Of places in memory: a 64-bit division takes several times as long as one of 32 bits.
__device__ __forceinline__ int64_t quotient(int64_t a, int64_t b) {
  if ((a | b) >> 32) return a / b;
  return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
}

// The type that arithmetic on a T is done in.
template <class T>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};
template <class T>
using arithmetic_of = typename ArithmeticOf<T>::type;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }

// Rounded to nearest, ties to even.
template <class T>
__device__ __forceinline__ T narrow(float x) {
  if constexpr (sizeof(T) >= 4) {
    return x;
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else {
    return __float2bfloat16_rn(x);
  }
}
template <class T>
__device__ __forceinline__ T narrow(double x) {
  if constexpr (sizeof(T) == 8) {
    return x;
  } else {
    return narrow<T>(static_cast<float>(x));
  }
}

// What 16 bytes hold, as a unit of loads and stores.
template <class T>
struct alignas(kVectorBytes) Vector {
  static constexpr int size = kVectorBytes / sizeof(T);
  T at[size];
};

// kDevice: from the device's memory, by an instruction that stays one; else also from shared memory, by an
// access that the compiler may take apart into elements (nvcc 13.0 does where much is under way, for sm_100).
template <bool kDevice, class T>
__device__ __forceinline__ Vector<T> load_vector(const T* from) {
  if constexpr (kDevice) return formulas::bit_cast<Vector<T>>(__ldca(reinterpret_cast<const uint4*>(from)));
  return *reinterpret_cast<const Vector<T>*>(from);
}
template <bool kDevice, class T>
__device__ __forceinline__ void store_vector(T* to, const Vector<T>& v) {
  if constexpr (kDevice) return __stwb(reinterpret_cast<uint4*>(to), formulas::bit_cast<uint4>(v));
  *reinterpret_cast<Vector<T>*>(to) = v;
}

// N elements from 16-byte aligned memory, in the arithmetic type; N * sizeof(T) a multiple of 16. All loads
// are under way before the first is waited for.
template <int N, bool kDevice = false, class T, class A>
__device__ __forceinline__ void load_vectors(const T* from, A (&to)[N]) {
  constexpr int kSize = Vector<T>::size;
  static_assert(N % kSize == 0);
  Vector<T> v[N / kSize];
#pragma unroll
  for (int i = 0; i < N / kSize; ++i) v[i] = load_vector<kDevice>(from + i * kSize);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = widen(v[i / kSize].at[i % kSize]);
}

template <int N, bool kDevice = false, class T, class A>
__device__ __forceinline__ void store_vectors(T* to, const A (&from)[N]) {
  constexpr int kSize = Vector<T>::size;
  static_assert(N % kSize == 0);
#pragma unroll
  for (int i = 0; i < N / kSize; ++i) {
    Vector<T> v;
#pragma unroll
    for (int j = 0; j < kSize; ++j) v.at[j] = narrow<T>(from[i * kSize + j]);
    store_vector<kDevice>(to + i * kSize, v);
  }
}

// Calls body with a null pointer of the element type, so that a kernel can be chosen by it: on the host.
template <class Body>
void with_element(DType type, const Body& body) {
  switch (type) {
    case DType::float32:
      return body(static_cast<float*>(nullptr));
    case DType::float64:
      return body(static_cast<double*>(nullptr));
    case DType::bfloat16:
      return body(static_cast<__nv_bfloat16*>(nullptr));
    case DType::float16:
      return body(static_cast<__half*>(nullptr));
  }
}

__device__ __forceinline__ double get_number(const Number& number) {
  switch (number.type) {
    case NumberType::float32:
      return static_cast<double>(*static_cast<const float*>(number.data));
    case NumberType::int64:
      return static_cast<double>(*static_cast<const int64_t*>(number.data));
    default:
      return *static_cast<const double*>(number.data);
  }
}

// A result written once, in its own dtype.
__device__ __forceinline__ void put_number(void* to, DType type, double value) {
  switch (type) {
    case DType::float64:
      *static_cast<double*>(to) = value;
      break;
    case DType::float32:
      *static_cast<float*>(to) = narrow<float>(value);
      break;
    case DType::bfloat16:
      *static_cast<__nv_bfloat16*>(to) = narrow<__nv_bfloat16>(value);
      break;
    case DType::float16:
      *static_cast<__half*>(to) = narrow<__half>(value);
      break;
  }
}

}  // namespace fused_ml::cuda
