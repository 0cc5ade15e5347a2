// Binary cross entropy of a logit x against a target t in [0, 1], with label smoothing e, positive weight p
// and focal modulation (gamma, alpha).
//
//   t' = (1 - e) t + e / 2
//   bce = (1 - t') softplus(x) + p t' softplus(-x)
//   loss = alpha_t (1 - p_t)^gamma bce,   p_t = t' s(x) + (1 - t') s(-x),   alpha_t = alpha t' + (1 -
//   alpha)(1 - t') dbce / dx = (1 - t') s(x) - p t' s(-x),   dp_t / dx = (2 t' - 1) s(x) s(-x),   s = sigmoid
//
// Every product with a weight of 0 is 0, so that the loss is finite wherever the mathematics is: an infinite
// logit against its own target. Focal loss: Lin et al., 2017, arXiv:1708.02002.
#pragma once

#include "formulas/pointwise.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
FUSED_ML_INLINE A times(A weight, A value) {  // 0 * inf = 0
  return select(weight == A(0), A(0), weight * value);
}

// What both variants need: softplus and sigmoid of x and -x from one exponential.
template <class A>
struct LogisticParts {
  A softplus, softplus_negative, sigmoid, sigmoid_negative;

  FUSED_ML_INLINE static LogisticParts of(A x, A e) {  // e = exp(-|x|)
    const A log_part = log1p_of_fraction(e);
    const A larger = A(1) / (A(1) + e);
    const A smaller = e * larger;
    const bool negative = x < A(0);
    return {select(negative, A(0), x) + log_part, select(negative, -x, A(0)) + log_part,
            select(negative, smaller, larger), select(negative, larger, smaller)};
  }
};

// Neither smoothing nor focal modulation.
template <class A>
struct BinaryCrossEntropy {
  static constexpr const char* kName = "binary_cross_entropy";
  FUSED_ML_INLINE A prepare(A x) const { return exp_nonpositive(-absolute(x)); }
  FUSED_ML_INLINE Term<A> operator()(A x, A t, A p, A prepared) const {
    const LogisticParts<A> s = LogisticParts<A>::of(x, prepared);
    const A no = A(1) - t, yes = p * t;
    return {times(no, s.softplus) + times(yes, s.softplus_negative),
            no * s.sigmoid - yes * s.sigmoid_negative, p * s.softplus_negative - s.softplus};
  }
};

template <class A>
struct FocalBinaryCrossEntropy {
  static constexpr const char* kName = "focal_binary_cross_entropy";
  static constexpr const char* kOptions[] = {"focal_gamma", "focal_alpha", "label_smoothing", "ignore_index"};
  A gamma, alpha, smoothing;  // alpha < 0: none
  A ignore;                   // NaN: none

  FUSED_ML_INLINE A prepare(A x) const { return exp_nonpositive(-absolute(x)); }
  FUSED_ML_INLINE Term<A> operator()(A x, A target, A p, A prepared) const {
    const LogisticParts<A> s = LogisticParts<A>::of(x, prepared);
    const A t = (A(1) - smoothing) * target + A(0.5) * smoothing;
    const A no = A(1) - t, yes = p * t;
    const A bce = times(no, s.softplus) + times(yes, s.softplus_negative);
    const A bce_dx = no * s.sigmoid - yes * s.sigmoid_negative;
    const A bce_dt = p * s.softplus_negative - s.softplus;
    // (1 - p_t)^gamma and its derivative by 1 - p_t; x^0 = 1 also at 0.
    const A miss = times(t, s.sigmoid_negative) + times(no, s.sigmoid);
    const bool flat = gamma == A(0);
    const A power = select(flat, A(1), exp(gamma * log(miss)));
    const A power_slope =
        select(flat, A(0), select(gamma == A(1), A(1), gamma * exp((gamma - A(1)) * log(miss))));
    const A miss_dx = -(t - no) * s.sigmoid * s.sigmoid_negative;
    const A miss_dt = s.sigmoid_negative - s.sigmoid;
    const bool balanced = alpha < A(0);
    const A class_weight = select(balanced, A(1), alpha * t + (A(1) - alpha) * no);
    const A class_weight_dt = select(balanced, A(0), alpha + alpha - A(1));
    const A loss = times(class_weight, times(power, bce));
    const A dx = class_weight * (times(power, bce_dx) + times(times(miss_dx, power_slope), bce));
    const A dt = (class_weight_dt * times(power, bce) +
                  class_weight * (times(power, bce_dt) + times(times(miss_dt, power_slope), bce))) *
                 (A(1) - smoothing);
    return {loss, dx, dt, target != ignore};
  }
};

}  // namespace FUSED_ML_NAMESPACE
