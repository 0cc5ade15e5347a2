// One instruction set's bare formulas, compiled as the kernels are.

#include "formulas/exp_below.h"
#include "formulas/normal.h"
#include "formulas.h"

namespace FUSED_ML_NAMESPACE {

#define FUSED_ML_RAW_LOOP(formula)                                             \
  template <class A>                                                           \
  void formula##_loop(const A* __restrict x, A* __restrict y, int64_t n) {     \
    _Pragma("GCC ivdep") for (int64_t i = 0; i < n; ++i) y[i] = formula(x[i]); \
  }
FUSED_ML_RAW_FORMULAS(FUSED_ML_RAW_LOOP)
#undef FUSED_ML_RAW_LOOP

template <class A>
void terms_loop(A m, const A* __restrict x, A* __restrict value, A* __restrict rest, int64_t n) {
  const ExpBelow<A> term = ExpBelow<A>::make(m);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const Parts<A> both = parts(term(x[i]));
    value[i] = both.value;
    rest[i] = both.rest;
  }
  const Parts<A> top = parts(term(m));
  value[n] = top.value;
  rest[n] = top.rest;
}

#define FUSED_ML_RAW_ENTRY(formula) {#formula, formula##_loop<float>, formula##_loop<double>},
extern const Formulas formulas;
const Formulas formulas = {
    FUSED_ML_ISA_NAME,
    {FUSED_ML_RAW_FORMULAS(FUSED_ML_RAW_ENTRY)},
    terms_loop<float>,
    terms_loop<double>,
};
#undef FUSED_ML_RAW_ENTRY

}  // namespace FUSED_ML_NAMESPACE
