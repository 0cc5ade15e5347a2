// A row's output written past the caches, a line behind each step of the next row's sums: memory takes it
// while the CPU computes, where it would wait for a row in one go, and for lines to be fetched that are
// written whole.
#pragma once

#include "formulas/row.h"
#include "frames/cpu/vectors/convert.h"

namespace FUSED_ML_NAMESPACE {

// What a formula's map reads, from a block's first class on; null: not this formula.
template <class A>
struct MapInputs {
  const A *x, *y, *w, *terms;
};

template <class F, class A>
FUSED_ML_INLINE A mapped(const F& f, const MapInputs<A>& in, int64_t j, const RowCoefficients<A>& c) {
  return f.map(F::kMapReadsInput ? in.x[j] : A(0), F::kMapReadsInput && F::kTwoInputs ? in.y[j] : A(0),
               F::kSide ? in.w[j] : A(0), F::kKeepTerms ? in.terms[j] : A(0), c);
}

template <class A>
struct PastBlock {
  A* to = nullptr;  // null: nothing to write
  MapInputs<A> in;
  int64_t count;
  RowCoefficients<A> c;
  bool keep;  // else zeros
};

template <class F, class A>
class PastWriter {
 public:
  PastWriter(const F& formula, const PastBlock<A>& block) : f(formula), p(block) {
    for (; at < p.count && !line_starts_at(p.to + at); ++at) p.to[at] = value(at);
  }
  // The next step, if there is a whole one.
  FUSED_ML_INLINE void step() {
    if (at + kStep > p.count) return;
    A step[kStep];
    FUSED_ML_LANES
    for (int l = 0; l < kStep; ++l) step[l] = value(at + l);
    store_step_past(step, p.to + at);
    at += kStep;
  }
  void finish() {
    for (; at < p.count; ++at) p.to[at] = value(at);
  }

 private:
  FUSED_ML_INLINE A value(int64_t j) const { return select(p.keep, mapped(f, p.in, j, p.c), A(0)); }

  const F f;
  const PastBlock<A> p;
  int64_t at = 0;
};

}  // namespace FUSED_ML_NAMESPACE
