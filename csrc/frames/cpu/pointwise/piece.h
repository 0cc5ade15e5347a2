// Of each pointwise formula the loops over a piece, and nothing else: a few hundred bytes for each
// instruction set.
#pragma once

#include "formulas/pointwise.h"
#include "frames/cpu/vectors/convert.h"

namespace FUSED_ML_NAMESPACE {

// Lines of the next piece to ask for, a step's at a time, the inputs' in the first loop and the outputs' in
// the second, so that memory is never idle: those of an operand that does not lie evenly, or is not there,
// again and again.
struct Ahead {
  const char *x, *t, *value, *dx;
  int64_t x_step, t_step, value_step, dx_step;
};

// Whole steps of elements that lie side by side in the arithmetic type.
template <class A>
struct Piece {
  int64_t count;
  const A *x, *t, *w, *p, *g;
  A *value, *dx, *dt;
  A* ready;  // scratch: what the formula prepares
  // Outputs that go past the caches, from value and dx and a step at a time: 16777216 BCE gradients into
  // memory that is there 0.65 -> 0.52 ns an element and thread, and 0.58 where a piece at a time.
  A *past_value, *past_dx;
  Ahead ahead;
};

template <class A>
using PieceLoop = void (*)(const A* options, const Piece<A>& piece);

// By what is wanted.
template <class A>
struct PieceLoops {
  PieceLoop<A> value, gradient, both, all;  // all: dt too
};

// Two loops rather than one, for where a single element's chain of operations is long, those that wait for
// their turn fill the CPU's scheduler and the units idle.
template <class F, class A, bool kValue, bool kDx, bool kDt>
void run_piece(const A* options, const Piece<A>& piece) {
  const F f = with_options<F>(options);
  const A *x = piece.x, *t = piece.t, *w = piece.w, *p = piece.p, *g = piece.g;
  A *value = piece.value, *dx = piece.dx, *dt = piece.dt;
  const Ahead ahead = piece.ahead;
  const int64_t count = piece.count;
  A* prepared_of = piece.ready;
  for (int64_t i = 0; i < count; i += kStep) {
    __builtin_prefetch(ahead.x + i * ahead.x_step);
    __builtin_prefetch(ahead.t + i * ahead.t_step);
    if constexpr (kPrepares<F>) {
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) prepared_of[i + l] = f.prepare(x[i + l]);
    }
  }
  const A* ready = kPrepares<F> ? prepared_of : x;
  for (int64_t i = 0; i < count; i += kStep) {
    __builtin_prefetch(ahead.value + i * ahead.value_step, 1);
    __builtin_prefetch(ahead.dx + i * ahead.dx_step, 1);
    FUSED_ML_LANES
    for (int l = 0; l < kStep; ++l) {
      const int64_t j = i + l;
      const PointwiseResult<A> r = evaluate(f, PointwiseInputs<A>{x[j], t[j], w[j], p[j], g[j]}, ready[j]);
      if constexpr (kValue) value[j] = r.value;
      if constexpr (kDx) dx[j] = r.dx;
      if constexpr (kDt) dt[j] = r.dt;
    }
    if (kValue && piece.past_value) store_step_past(value + i, piece.past_value + i);
    if (kDx && piece.past_dx) store_step_past(dx + i, piece.past_dx + i);
  }
}

template <class F, class A>
constexpr PieceLoops<A> piece_loops_of() {
  if constexpr (kActivation<F>) {
    return {run_piece<F, A, true, false, false>, run_piece<F, A, false, true, false>, nullptr, nullptr};
  } else {
    return {run_piece<F, A, true, false, false>, run_piece<F, A, false, true, false>,
            run_piece<F, A, true, true, false>, run_piece<F, A, true, true, true>};
  }
}

}  // namespace FUSED_ML_NAMESPACE
