// Exponentials of differences from a row's peak, in two parts, so that their sum loses nothing of them.
#pragma once

#include "numeric.h"

namespace FUSED_ML_NAMESPACE {

// A number in two parts: value + rest, |rest| under an ulp of value.
template <class A>
struct Parts {
  A value, rest;
};

// An exponential before its polynomial: scale * exp(t).
template <class A>
struct Reduced {
  A t, scale;
};

// The exponential in two parts: what rounding scale (1 + p) to `value` loses is exact in `rest`.
template <class A>
FUSED_ML_INLINE Parts<A> parts(const Reduced<A>& e) {
  const A p = exp_tail(e.t) * (e.t * e.t) + e.t;
  const A value = p * e.scale + e.scale;
  return {value, p * e.scale - (value - e.scale)};
}
template <class A>
FUSED_ML_INLINE Parts<A> parts(A whole) {
  return {whole, A(0)};
}

// sum += term, and what the sum and the terms lose goes to `rest` (Knuth's two-sum).
template <class A>
FUSED_ML_INLINE void accumulate(A& sum, A& rest, const Parts<A>& term) {
  const A total = sum + term.value;
  const A added = total - sum;
  rest += ((sum - (total - added)) + (term.value - added)) + term.rest;
  sum = total;
}
// A sum in float64 loses nothing of float terms.
FUSED_ML_INLINE void accumulate(double& sum, float& rest, const Parts<float>& term) {
  sum += static_cast<double>(term.value);
  rest += term.rest;
}

// exp(x - m) for many x and one m >= x, as accurate as if x - m were exact.
//
// x - m rounds: at m = 3, x = -7 that alone is 2 ulp of the result. Here m = k ln2 + f is split once, and the
// reduction t = x - n ln2 - f starts from x itself; the result is 2^(n - k) exp(t). For |m| >
// exact_difference, x - m is exact and is used.
template <class A>
struct ExpBelow {
  A base;   // subtracted first: m or 0
  A top;    // and what of m is left
  A low;    // x - base under which the term is 0
  A f;      // top = k ln2 + f
  A magic;  // turns round_magic + (n - k) into n

  // Many of them, an array a field, so that a loop over lanes reads vectors.
  template <int N>
  struct Lanes {
    A base[N], top[N], low[N], f[N], magic[N];
    FUSED_ML_INLINE ExpBelow get(int64_t lane) const {
      return {base[lane], top[lane], low[lane], f[lane], magic[lane]};
    }
    FUSED_ML_INLINE void set(int64_t lane, const ExpBelow& e) {
      base[lane] = e.base;
      top[lane] = e.top;
      low[lane] = e.low;
      f[lane] = e.f;
      magic[lane] = e.magic;
    }
  };

  FUSED_ML_INLINE static ExpBelow make(A m) {
    using K = Constants<A>;
    // -inf (a block of nothing but -inf): any finite reference gives its terms their value, 0.
    const A safe = select(m == -K::infinity, A(0), m);
    const bool split = absolute(safe) <= K::exact_difference;
    const A base = select(split, A(0), safe), top = select(split, safe, A(0));
    const A k = (top * K::log2e + K::round_magic) - K::round_magic;
    return {base, top, top + K::exp_low, (top - k * K::ln2_hi) - k * K::ln2_lo, K::round_magic - k};
  }

  // Of 0 for an x that does not count.
  FUSED_ML_INLINE Reduced<A> operator()(A x, bool counts = true) const {
    using K = Constants<A>;
    const A y = x - base;
    const A shifted = (y - top) * K::log2e + K::round_magic;
    const A n = shifted - magic;
    const A t = ((y - n * K::ln2_hi) - f) - n * K::ln2_lo;
    const bool zero = y < low;  // whatever came out for it
    return {select(zero, A(0), t), select(zero | !counts, A(0), power_of_two(shifted))};
  }
};

}  // namespace FUSED_ML_NAMESPACE
