// Huber loss of x against t: quadratic where they differ by less than delta, linear beyond.
//
//   loss = |d| <= delta ? d^2 / 2 : delta (|d| - delta / 2),   d = x - t
//   dloss / dx = d limited to [-delta, delta] = -dloss / dt
//
// Huber, "Robust Estimation of a Location Parameter", 1964, https://doi.org/10.1214/aoms/1177703732
#pragma once

#include "formulas/pointwise.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
struct HuberLoss {
  static constexpr const char* kName = "huber_loss";
  static constexpr const char* kOptions[] = {"delta"};
  A delta;
  FUSED_ML_INLINE Term<A> operator()(A x, A t) const {
    const A d = x - t, size = absolute(d);
    const bool near = size <= delta;
    const A slope = select(near, d, copy_sign(delta, d));
    return {select(near, A(0.5) * d * d, delta * (size - A(0.5) * delta)), slope, -slope};
  }
};

}  // namespace FUSED_ML_NAMESPACE
