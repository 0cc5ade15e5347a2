// The elementary functions of formulas/numeric.h and normal.h as loops over arrays, one table for each
// instruction set.
#pragma once

#include <cstdint>

namespace fused_ml {

#define FUSED_ML_RAW_FORMULAS(do)                                                                      \
  do                                                                                                   \
  (exp) do(log) do(log1p) do(expm1) do(tanh) do(sigmoid) do(exp_nonpositive) do(log1p_of_fraction) do( \
      normal_cdf)

// A formula over n elements.
template <class A>
using Loop = void (*)(const A* x, A* y, int64_t n);

// ExpBelow: term(x), and term(m) behind the last, each in two parts. x: [n]; value, rest: [n + 1]
template <class A>
using TermsLoop = void (*)(A m, const A* x, A* value, A* rest, int64_t n);

struct Formula {
  const char* name;
  Loop<float> float32;
  Loop<double> float64;
};

constexpr int kFormulas = 9;

struct Formulas {
  const char* isa;
  Formula unary[kFormulas];
  TermsLoop<float> terms_float32;
  TermsLoop<double> terms_float64;
};

namespace baseline {
extern const Formulas formulas;
}
namespace avx2 {
extern const Formulas formulas;
}
namespace avx512 {
extern const Formulas formulas;
}

}  // namespace fused_ml
