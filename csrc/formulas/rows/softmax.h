// Softmax, log-softmax and their gradients over one row.
//
//   softmax(x)_j = exp(x_j - m) / sum_k exp(x_k - m)          dx = y (g - sum_k g_k y_k)       y = softmax(x)
//   log_softmax(x)_j = (x_j - m) - log sum_k exp(x_k - m)     dx = g - exp(y) sum_k g_k        y =
//   log_softmax(x)
//
// m is the row's maximum; softmin is softmax of -x. Log-softmax sums the classes other than the first maximum
// apart, so that the likeliest class keeps its bits: -log1p(others).
#pragma once

#include "cross_entropy.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
struct Softmax {
  using Reference = ExpBelow<A>;
  static constexpr bool kPeak = true, kTwoInputs = false, kSide = false, kKeepTerms = true, kSecond = false,
                        kMapReadsInput = false;
  static constexpr Own kOwn = Own::none;
  A sign;  // -1: softmin

  FUSED_ML_INLINE A key(A x) const { return sign * x; }
  FUSED_ML_INLINE A logit(A key) const { return key; }
  FUSED_ML_INLINE Reduced<A> term(const Reference& reference, A x, A, bool) const {
    return reference(key(x));
  }
  template <class R>
  FUSED_ML_INLINE RowResult<R> finish(const RowSums<R>& s) const {
    return {R(0), R(0), R(1) / s.others, R(0), R(0), R(0)};
  }
  FUSED_ML_INLINE A map(A, A, A, A term, const RowCoefficients<A>& c) const { return term * c.scale; }
};

template <class A>
struct LogSoftmax {
  using Reference = ExpBelow<A>;
  static constexpr bool kPeak = true, kTwoInputs = false, kSide = false, kKeepTerms = false, kSecond = false,
                        kMapReadsInput = true;
  static constexpr Own kOwn = Own::peak;

  FUSED_ML_INLINE A key(A x) const { return x; }
  FUSED_ML_INLINE A logit(A key) const { return key; }
  FUSED_ML_INLINE Reduced<A> term(const Reference& reference, A x, A, bool counts) const {
    return reference(x, counts);
  }
  template <class R>
  FUSED_ML_INLINE RowResult<R> finish(const RowSums<R>& s) const {
    // In the elements' type: the last rounding but one, and on a CPU half the time.
    const R others = s.others * (R(2) - s.own);
    const A high = static_cast<A>(others);
    const R log_total = log1p_nonnegative(high, static_cast<A>(others - static_cast<R>(high)));
    return {R(0), R(0), R(0), R(0), log_total, R(0) - log_total + (s.peak - s.peak)};
  }
  FUSED_ML_INLINE A map(A x, A, A, A, const RowCoefficients<A>& c) const {
    return (x - c.peak) - c.log_total;
  }
  FUSED_ML_INLINE A map_own(A, A own) const { return own; }
};

// x: the gradient g; y: the output.
template <class A>
struct SoftmaxBackward {
  using Reference = NoReference;
  static constexpr bool kPeak = false, kTwoInputs = true, kSide = false, kKeepTerms = false, kSecond = false,
                        kMapReadsInput = true;
  static constexpr Own kOwn = Own::none;
  A sign;

  FUSED_ML_INLINE A key(A x) const { return x; }
  FUSED_ML_INLINE A logit(A key) const { return key; }
  template <class R>
  FUSED_ML_INLINE R term(const Reference&, R g, R y, bool) const {
    return g * y;
  }
  template <class R>
  FUSED_ML_INLINE RowResult<R> finish(const RowSums<R>& s) const {
    return {R(0), R(0), R(0), s.others, R(0), R(0)};
  }
  FUSED_ML_INLINE A map(A g, A y, A, A, const RowCoefficients<A>& c) const {
    return sign * y * (g - c.offset);
  }
};

template <class A>
struct LogSoftmaxBackward : SoftmaxBackward<A> {
  using Reference = NoReference;
  template <class R>
  FUSED_ML_INLINE R term(const Reference&, R g, R, bool) const {
    return g;
  }
  FUSED_ML_INLINE A map(A g, A y, A, A, const RowCoefficients<A>& c) const {
    return g - exp_nonpositive(y) * c.offset;
  }
};

}  // namespace FUSED_ML_NAMESPACE
