// Stochastic gradient descent, with momentum, dampening, Nesterov's look-ahead and L2 decay.
//
//   g = gradient_factor * gradient + weight_decay * p
//   b = momentum * b + (1 - dampening) * g            the first step: b = g
//   p = p - lr * (nesterov ? g + momentum * b : b)    without momentum: p - lr * g
//
// Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning",
// 2013, https://proceedings.mlr.press/v28/sutskever13.html (torch's form: the learning rate multiplies b as a
// whole)
#pragma once

#include "formulas/optimizer.h"

namespace FUSED_ML_NAMESPACE {

struct SgdOptions {
  static constexpr const char* kName = "sgd";
  static constexpr bool kCounts = false;
  double lr, momentum, dampening, weight_decay;
  double nesterov, maximize;  // 0 or 1
};

template <class A>
struct SgdConstants {
  A gradient_factor;                   // 1 / loss scale * clip coefficient, negative to maximize
  A weight_decay, momentum, rest, lr;  // rest = 1 - dampening, first 1
  A nesterov, look_ahead;              // 0 and 1, or with Nesterov's look-ahead 1 and the momentum

  FUSED_ML_INLINE A decayed(A p, A gradient) const {
    const A scaled = gradient_factor * gradient;
    return scaled + only_if(weight_decay != A(0), weight_decay * p);  // no 0 * p: an infinite p stays one
  }
};

template <class A>
struct Sgd : SgdConstants<A> {
  static constexpr int states = 0;
  FUSED_ML_INLINE void operator()(A& p, A gradient, A&, A&, A&) const {
    p = p - this->lr * this->decayed(p, gradient);
  }
};

// State: b.
template <class A>
struct SgdMomentum : SgdConstants<A> {
  static constexpr int states = 1;
  FUSED_ML_INLINE void operator()(A& p, A gradient, A& b, A&, A&) const {
    const A g = this->decayed(p, gradient);
    b = this->momentum * b + this->rest * g;
    p = p - this->lr * (this->look_ahead * b + only_if(this->nesterov != A(0), g));
  }
};

FUSED_ML_INLINE SgdConstants<double> constants_of(const SgdOptions& o, const Progress& progress,
                                                  double factor) {
  return {o.maximize != 0 ? -factor : factor,   o.weight_decay, o.momentum,
          progress.first ? 1 : 1 - o.dampening, o.lr,           o.nesterov,
          o.nesterov != 0 ? o.momentum : 1};
}

}  // namespace FUSED_ML_NAMESPACE
