// Adam and AdamW, with AMSGrad: a step along the running mean of the gradient over the root of its running
// square.
//
//   g = gradient_factor * gradient + l2 * p           L2 decay (Adam); 0 for AdamW
//   m = beta1 * m + (1 - beta1) * g
//   v = beta2 * v + (1 - beta2) * g^2                 AMSGrad: vmax = max(vmax, v), below in place of v
//   p = (1 - lr * weight_decay) * p                   decoupled decay (AdamW)
//       - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//
// Kingma and Ba, "Adam: A Method for Stochastic Optimization", https://arxiv.org/abs/1412.6980
// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", https://arxiv.org/abs/1711.05101
// Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", https://openreview.net/forum?id=ryQu7f-RZ
#pragma once

#include "formulas/optimizer.h"

namespace FUSED_ML_NAMESPACE {

struct AdamOptions {
  static constexpr const char* kName = "adam";
  static constexpr bool kCounts = true;
  double lr, beta1, beta2, eps, weight_decay;
  double decoupled, maximize;  // 0 or 1
};

template <class A>
struct AdamConstants {
  A gradient_factor;             // 1 / loss scale * clip coefficient, negative to maximize
  A l2, shrink;                  // shrink = 1 - lr * weight_decay where the decay is decoupled, else 1
  A beta1, rest1, beta2, rest2;  // rest = 1 - beta
  A step_size;                   // lr / (1 - beta1^t)
  A root_correction;             // 1 / sqrt(1 - beta2^t)
  A eps;

  FUSED_ML_INLINE void moments(A p, A gradient, A& m, A& v) const {
    const A scaled = gradient_factor * gradient;
    const A g = scaled + only_if(l2 != A(0), l2 * p);  // no 0 * p: an infinite parameter stays one
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
  }
  FUSED_ML_INLINE A moved(A p, A m, A v) const {
    return p * shrink - step_size * (m / (square_root(v) * root_correction + eps));
  }
};

// States: m, v.
template <class A>
struct Adam : AdamConstants<A> {
  static constexpr int states = 2;
  FUSED_ML_INLINE void operator()(A& p, A gradient, A& m, A& v, A&) const {
    this->moments(p, gradient, m, v);
    p = this->moved(p, m, v);
  }
};

// States: m, v, vmax. The maximum is of the uncorrected v, and a NaN in either stays.
template <class A>
struct AdamAmsgrad : AdamConstants<A> {
  static constexpr int states = 3;
  FUSED_ML_INLINE void operator()(A& p, A gradient, A& m, A& v, A& vmax) const {
    this->moments(p, gradient, m, v);
    vmax = (vmax >= v) | (vmax != vmax) ? vmax : v;
    p = this->moved(p, m, vmax);
  }
};

FUSED_ML_INLINE AdamConstants<double> constants_of(const AdamOptions& o, const Progress& progress,
                                                   double factor) {
  const bool decoupled = o.decoupled != 0;
  return {o.maximize != 0 ? -factor : factor,
          decoupled ? 0 : o.weight_decay,
          decoupled ? 1 - o.lr * o.weight_decay : 1,
          o.beta1,
          1 - o.beta1,
          o.beta2,
          1 - o.beta2,
          o.lr / (1 - power(o.beta1, progress.step)),
          1 / square_root(1 - power(o.beta2, progress.step)),
          o.eps};
}

}  // namespace FUSED_ML_NAMESPACE
