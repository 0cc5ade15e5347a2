// RMSprop: the gradient over the root of its running square; centered, and with momentum, on request.
//
//   g = gradient_factor * gradient + weight_decay * p
//   v = alpha * v + (1 - alpha) * g^2
//   a = alpha * a + (1 - alpha) * g                   centered; else 0
//   b = momentum * b + g / (sqrt(v - a^2) + eps)      without momentum: its last term
//   p = p - lr * b
//
// Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012; centered: Graves, "Generating Sequences
// With Recurrent Neural Networks", https://arxiv.org/abs/1308.0850
#pragma once

#include "formulas/optimizer.h"

namespace FUSED_ML_NAMESPACE {

struct RmspropOptions {
  static constexpr const char* kName = "rmsprop";
  static constexpr bool kCounts = true;
  double lr, alpha, eps, weight_decay, momentum;
  double maximize;  // 0 or 1
};

template <class A>
struct RmspropConstants {
  A gradient_factor, weight_decay, alpha, rest, eps, momentum, lr;  // rest = 1 - alpha
};

// States: v, then b where kMomentum, then a where kCentered.
template <class A, bool kMomentum, bool kCentered>
struct Rmsprop : RmspropConstants<A> {
  static constexpr int states = 1 + kMomentum + kCentered;
  FUSED_ML_INLINE void operator()(A& p, A gradient, A& v, A& second, A& third) const {
    A &b = second, &a = kMomentum ? third : second;
    const A scaled = this->gradient_factor * gradient;
    const A g = scaled + only_if(this->weight_decay != A(0), this->weight_decay * p);
    v = this->alpha * v + this->rest * g * g;
    if constexpr (kCentered) a = this->alpha * a + this->rest * g;
    const A variance = kCentered ? v - a * a : v;  // below 0 by rounding alone, where g stays the same
    const A ratio = g / (square_root(variance < A(0) ? A(0) : variance) + this->eps);
    if constexpr (kMomentum) b = this->momentum * b + ratio;
    p = p - this->lr * (kMomentum ? b : ratio);
  }
};

FUSED_ML_INLINE RmspropConstants<double> constants_of(const RmspropOptions& o, const Progress&,
                                                      double factor) {
  return {o.maximize != 0 ? -factor : factor, o.weight_decay, o.alpha, 1 - o.alpha, o.eps, o.momentum, o.lr};
}

}  // namespace FUSED_ML_NAMESPACE
