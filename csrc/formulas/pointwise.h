// What a pointwise formula is, and what a frame makes of one at an element.
//
// An activation has value(x) and slope(s): the value, and its derivative as a function of what the forward
// pass saved, the input or, where the Python side says so, the output. A loss is a function (x, t) or (x, t,
// p) -> Term: its value and the value's derivatives. Element weights, the gradient from above and reductions
// are the frame's.
//
// Either is a plain struct of A's, its options in the order of kOptions, and may have prepare(x), which is
// then handed to the others behind their operands: where an element's chain of operations is long, the CPU's
// frame computes it in a loop of its own.
#pragma once

#include "numeric.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
struct Term {
  A value, dx, dt;
  bool counts = true;  // false: a zero, whatever the weights
};

// The operands of one element.
template <class A>
struct PointwiseInputs {
  A x;  // input; backward of an activation: what forward saved
  A t;  // target
  A w;  // element weight
  A p;  // a loss's third operand
  A g;  // d(result) / d(this element's value)
};

template <class A>
struct PointwiseResult {
  A value;
  A dx, dt;  // g times the value's derivatives
};

template <class F>
constexpr bool kActivation = requires { &F::slope; };
template <class F>
constexpr bool kPrepares = requires { &F::prepare; };
template <class F, class A>
constexpr bool kTakesP = requires(const F f, A a) { f(a, a, a, a); } ||
                         (!kPrepares<F> && requires(const F f, A a) { f(a, a, a); });

template <class F>
constexpr int kOptionsOf = 0;
template <class F>
  requires requires { F::kOptions; }
constexpr int kOptionsOf<F> = sizeof(F::kOptions) / sizeof(F::kOptions[0]);

// A formula with its options, from numbers in their order.
template <class F, class A>
FUSED_ML_INLINE F with_options(const A* options) {
  static_assert(kOptionsOf<F> == 0 || sizeof(F) == kOptionsOf<F> * sizeof(A), "its members are its options");
  F f{};
  if constexpr (kOptionsOf<F> > 0) __builtin_memcpy(&f, options, sizeof(F));
  return f;
}

template <class F, class A>
FUSED_ML_INLINE A prepared(const F& f, A x) {
  if constexpr (kPrepares<F>) return f.prepare(x);
  return x;
}

template <class F, class A>
FUSED_ML_INLINE Term<A> loss_at(const F& f, const PointwiseInputs<A>& in, A ready) {
  if constexpr (kPrepares<F> && kTakesP<F, A>)
    return f(in.x, in.t, in.p, ready);
  else if constexpr (kPrepares<F>)
    return f(in.x, in.t, ready);
  else if constexpr (kTakesP<F, A>)
    return f(in.x, in.t, in.p);
  else
    return f(in.x, in.t);
}

// What nobody looks at is not computed.
template <class F, class A>
FUSED_ML_INLINE PointwiseResult<A> evaluate(const F& f, const PointwiseInputs<A>& in, A ready) {
  if constexpr (kActivation<F> && kPrepares<F>) {
    return {f.value(in.x, ready), in.g * f.slope(in.x, ready), A(0)};
  } else if constexpr (kActivation<F>) {
    return {f.value(in.x), in.g * f.slope(in.x), A(0)};
  } else {
    const Term<A> term = loss_at(f, in, ready);
    const A scale = in.w * in.g;
    return {select(term.counts, in.w * term.value, A(0)), select(term.counts, scale * term.dx, A(0)),
            select(term.counts, scale * term.dt, A(0))};
  }
}

}  // namespace FUSED_ML_NAMESPACE
