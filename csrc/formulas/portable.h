// What lets a formula compile for a CPU instruction set and for a CUDA device from the same text.
#pragma once

#include <cstdint>

// The namespace is chosen by the including translation unit: one per CPU instruction set, so that the linker
// never merges code compiled for different ones; `formulas` on the device.
#ifndef FUSED_ML_NAMESPACE
#define FUSED_ML_NAMESPACE fused_ml::formulas
#endif

#ifdef __CUDACC__
#define FUSED_ML_INLINE __host__ __device__ __forceinline__
#else
#define FUSED_ML_INLINE inline __attribute__((always_inline))
#endif

namespace FUSED_ML_NAMESPACE {

template <class To, class From>
FUSED_ML_INLINE To bit_cast(From from) {
  return __builtin_bit_cast(To, from);
}

}  // namespace FUSED_ML_NAMESPACE
