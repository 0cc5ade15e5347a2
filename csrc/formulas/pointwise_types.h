// What passes between the pointwise frame and its formulas.
#pragma once

#include "numeric.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
struct PointwiseInputs {
  A x;  // input
  A t;  // target
  A w;  // element weight
  A p;  // weight of the positive targets
  A g;  // d(result) / d(this element's value)
};

template <class A>
struct PointwiseResult {
  A value;
  A dx, dt;  // g times the value's derivatives
};

}  // namespace FUSED_ML_NAMESPACE
