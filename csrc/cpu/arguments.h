// What the operators hand to the kernels: plain pointers and numbers, no torch type.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fused_ml {

enum class DType : int { float32, float64, bfloat16, float16 };

// The kernels of one instruction set. Each region defines one; the choice is made once, at load.
struct Kernels {
  const char* name;
};

enum class InstructionSet : int { baseline, avx2, avx512, count };

const Kernels& kernels();  // those of the chosen instruction set

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace fused_ml
