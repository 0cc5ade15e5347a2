// Softmax cross entropy of logits x against a class y or a distribution q, with label smoothing e, class
// weights w, z-loss z and soft cap c.
//
//   l = c tanh(x / c)  (l = x without a cap),   p = softmax(l),   lse = log(sum exp(l))
//   class:         loss = (1 - e) w_y (lse - l_y) + (e / C) sum_j w_j (lse - l_j) + z lse^2
//   distribution:  loss = sum_j w_j q'_j (lse - l_j) + z lse^2,   q' = (1 - e) q + e / C
//   dloss / dl_j = p_j (U + 2 z lse) - u_j,   u = the weights of the sum above,   U = sum_j u_j
//
// lse - l_y is log1p(others / own) with the other classes summed apart, and p_y - 1 is -others / (others +
// own): both keep their bits where p_y is nearly 1. Label smoothing: Szegedy et al., 2016, arXiv:1512.00567.
// Z-loss: PaLM, Chowdhery et al., 2022, arXiv:2204.02311. Soft cap: Gemma 2, 2024, arXiv:2408.00118.
#pragma once

#include "formulas/row.h"

namespace FUSED_ML_NAMESPACE {

// log(others + own) where the largest term is 1 + d, d a rounding that all terms share and that does not
// count: others / (1 + d) = others (2 - (1 + d)) to d^2.
template <class R>
FUSED_ML_INLINE R log_of_total(R others, R own, bool own_is_peak) {
  return log1p_nonnegative(select(own_is_peak, others * (R(2) - own), others + (own - R(1))));
}

template <class A>
struct CrossEntropyOptions {
  A label_smoothing, smoothing_per_class, z_loss, softcap;
};

// The squared log-sum-exp, where asked for: 0 * inf must not make NaN.
template <class R>
FUSED_ML_INLINE R z_term(R z, R lse) {
  return select(z == R(0), R(0), z * lse * lse);
}

// The common case: a class, neither smoothing nor cap.
template <class A>
struct CrossEntropyPlain {
  using Reference = ExpBelow<A>;
  static constexpr bool kPeak = true, kTwoInputs = false, kSide = false, kKeepTerms = true, kSecond = false;
  static constexpr bool kMapReadsInput = false;
  static constexpr Own kOwn = Own::target;
  CrossEntropyOptions<A> o;

  FUSED_ML_INLINE A key(A x) const { return x; }
  FUSED_ML_INLINE A logit(A key) const { return key; }
  FUSED_ML_INLINE Reduced<A> term(const Reference& reference, A x, A, bool counts) const {
    return reference(x, counts);
  }

  template <class R>
  FUSED_ML_INLINE RowResult<R> finish(const RowSums<R>& s) const {
    const R total = s.others + s.own;
    const R log_total = log_of_total(s.others, s.own, s.own_logit == s.peak);
    const R lse = s.peak + log_total;
    const R pull = R(2) * R(o.z_loss) * lse;
    RowResult<R> r;
    r.loss = s.own_weight * ((s.peak - s.own_logit) + log_total) + z_term(R(o.z_loss), lse);
    r.lse = lse;
    const R share = s.gradient_scale / total;
    r.scale = (s.own_weight + pull) * share;
    r.offset = R(0);
    r.log_total = log_total;
    r.own = (pull * s.own - s.own_weight * s.others) * share;
    return r;
  }
  FUSED_ML_INLINE A map(A, A, A, A term, const RowCoefficients<A>& c) const { return term * c.scale; }
  FUSED_ML_INLINE A map_own(A, A own) const { return own; }
};

// A class, with smoothing or cap. Without kCap there is none: its tanh, twice a class, takes longer than the
// rest.
template <class A, bool kCap = true>
struct CrossEntropyClass {
  using Reference = ExpBelow<A>;
  static constexpr bool kPeak = true, kTwoInputs = false, kSide = true, kKeepTerms = true, kSecond = false;
  static constexpr bool kMapReadsInput = true;
  static constexpr Own kOwn = Own::target;
  CrossEntropyOptions<A> o;

  FUSED_ML_INLINE A key(A x) const { return x; }
  FUSED_ML_INLINE A logit(A key) const {
    if constexpr (!kCap) return key;
    return select(o.softcap == A(0), key, o.softcap * tanh(key / o.softcap));
  }
  FUSED_ML_INLINE A slope(A x) const {
    if constexpr (!kCap) return A(1);
    const A t = tanh(x / o.softcap);
    return select(o.softcap == A(0), A(1), A(1) - t * t);
  }
  FUSED_ML_INLINE Reduced<A> term(const Reference& reference, A x, A, bool counts) const {
    return reference(logit(x), counts);
  }
  FUSED_ML_INLINE A weigh(A w, A) const { return o.smoothing_per_class * w; }

  template <class R>
  FUSED_ML_INLINE RowResult<R> finish(const RowSums<R>& s) const {
    const R total = s.others + s.own;
    const R log_total = log_of_total(s.others, s.own, s.own_logit == s.peak);
    const R lse = s.peak + log_total;
    const R weight = (R(1) - R(o.label_smoothing)) * s.own_weight;
    const R pull = s.side_weight + R(2) * R(o.z_loss) * lse;
    RowResult<R> r;
    r.loss = weight * ((s.peak - s.own_logit) + log_total) +
             select(s.side_weight == R(0), R(0), s.side + s.side_weight * log_total) +
             z_term(R(o.z_loss), lse);
    r.lse = lse;
    r.scale = (weight + pull) * s.gradient_scale / total;
    r.offset = s.gradient_scale;
    r.log_total = log_total;
    r.own = s.gradient_scale * ((pull * s.own - weight * s.others) / total - s.own_side_weight);
    return r;
  }
  FUSED_ML_INLINE A map(A x, A, A w, A term, const RowCoefficients<A>& c) const {
    return multiply_add(term, c.scale, -(c.offset * weigh(w, A(0)))) * slope(x);
  }
  FUSED_ML_INLINE A map_own(A x, A own) const { return own * slope(x); }
};

// A distribution over the classes. The own class is the likeliest one.
template <class A, bool kCap = true>
struct CrossEntropyDistribution : CrossEntropyClass<A, kCap> {
  using Base = CrossEntropyClass<A, kCap>;
  using Reference = typename Base::Reference;
  static constexpr bool kTwoInputs = true, kSecond = true;
  static constexpr Own kOwn = Own::peak;

  FUSED_ML_INLINE A weigh(A w, A q) const {
    return w * ((A(1) - Base::o.label_smoothing) * q + Base::o.smoothing_per_class);
  }

  template <class R>
  FUSED_ML_INLINE RowResult<R> finish(const RowSums<R>& s) const {
    const R total = s.others + s.own;
    const R log_total = log_of_total(s.others, s.own, true);
    const R lse = s.peak + log_total;
    const R weight = s.side_weight + s.own_side_weight;
    const R pull = R(2) * R(Base::o.z_loss) * lse;
    RowResult<R> r;
    r.loss = s.side + select(weight == R(0), R(0), weight * log_total) + z_term(R(Base::o.z_loss), lse);
    r.lse = lse;
    r.scale = (weight + pull) * s.gradient_scale / total;
    r.offset = s.gradient_scale;
    r.log_total = log_total;
    // p U - u of the likeliest class, whose p and u may both be nearly 1.
    r.own = s.gradient_scale * (s.side_weight + (pull * s.own - weight * s.others) / total);
    return r;
  }
  FUSED_ML_INLINE A map(A x, A q, A w, A term, const RowCoefficients<A>& c) const {
    return multiply_add(term, c.scale, -(c.offset * weigh(w, q))) * Base::slope(x);
  }
  // d loss / dq
  FUSED_ML_INLINE A map_second(A x, A, A w, const RowCoefficients<A>& c) const {
    return c.offset * w * (A(1) - Base::o.label_smoothing) * ((c.peak - Base::logit(x)) + c.log_total);
  }
};

}  // namespace FUSED_ML_NAMESPACE
