// The terms of a block of a row, whose lanes are classes, and their sum.
#pragma once

#include "term_sums.h"

namespace FUSED_ML_NAMESPACE {

// What is asked for while a block is summed: the next block (the next row, where it lies behind this one),
// and the lines of the output.
struct RowAhead {
  const char *x, *y, *out;
  int64_t x_bytes, y_bytes, out_bytes;  // from class to class
  bool by_second_level;                 // x: no nearer

  FUSED_ML_INLINE void ask_for(int64_t at, bool has_y) const {
    if (by_second_level) {
      __builtin_prefetch(x + at * x_bytes, 0, 2);
    } else {
      __builtin_prefetch(x + at * x_bytes);
    }
    if (has_y) __builtin_prefetch(y + at * y_bytes);
    __builtin_prefetch(out + at * out_bytes, 1);
  }
};

template <class A>
struct RowOperands {
  const A *x, *y;
  A* terms;  // where they go
  int64_t count, left_out;
};

template <class F, class A>
struct RowTerms {
  using Reference = typename F::Reference;
  using Stage = StageOf<F, A>;

  const F f;
  const Reference reference;
  const RowAhead ahead;
  const bool exact;

  // The sum without the class left out, and that class's term, into `block`; after_step() behind each step.
  template <class AfterStep>
  FUSED_ML_INLINE void sum(const RowOperands<A>& row, const AfterStep& after_step,
                           RowBlock<F, A>& block) const {
    const A *x = row.x, *y = row.y;
    A* __restrict terms = row.terms;
    TermSums<A> sums;
    Stage stage;
    for (int64_t first = 0; first < row.count; first += kStage) {
      const int64_t left = row.count - first, here = left < kStage ? left : kStage;
      const int64_t whole = here / kStep * kStep;
      for (int64_t j = 0; j < whole; j += kStep) {
        const int64_t at = first + j;
        ahead.ask_for(at, F::kTwoInputs);
        take_step(x + at, F::kTwoInputs ? y + at : y, stage, j);
        after_step();
      }
      if (whole < here) {
        A some_x[kStep] = {}, some_y[kStep] = {};
        for (int64_t j = whole; j < here; ++j) some_x[j - whole] = x[first + j];
        for (int64_t j = whole; F::kTwoInputs && j < here; ++j) some_y[j - whole] = y[first + j];
        take_step(some_x, some_y, stage, whole);
        for (int64_t j = here; j < whole + kStep; ++j) stage.drop(j);
      }
      const bool has_own = row.left_out >= first && row.left_out < first + here;
      Parts<A> own{};
      if (has_own) {
        own = stage.get(row.left_out - first);
        block.own_term = static_cast<double>(own.value) + static_cast<double>(own.rest);
        stage.drop(row.left_out - first);
      }
      sums.template add<F::kKeepTerms>(stage, 0, whole, terms + first, exact);
      if (whole < here) {
        A last[kStep];
        sums.template add<F::kKeepTerms>(stage, whole, whole + kStep, last, exact);
        for (int64_t j = whole; F::kKeepTerms && j < here; ++j) terms[first + j] = last[j - whole];
      }
      if (F::kKeepTerms && has_own) terms[row.left_out] = own.value;  // another block may have the row's
    }
    for (int l = 0; l < kStep; ++l) sums.sum[l] += static_cast<double>(sums.rest[l]);
    block.sum = sum_lanes<kStep>(sums.sum);
  }

 private:
  FUSED_ML_INLINE void take_step(const A* x, const A* y, Stage& stage, int64_t at) const {
    const F formula = f;
    FUSED_ML_LANES
    for (int l = 0; l < kStep; ++l) {
      stage.set(at + l, formula.term(reference, x[l], F::kTwoInputs ? y[l] : A(0), true));
    }
  }
};

}  // namespace FUSED_ML_NAMESPACE
