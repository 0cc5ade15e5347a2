// What passes between the rowwise frame and its formulas: the sums of a row, and what a formula makes of
// them.
#pragma once

#include "exp_below.h"

namespace FUSED_ML_NAMESPACE {

// Which class a row's sum leaves out, so that a confident row keeps the bits of the others.
enum class Own { none, target, peak };

template <class R>
struct RowSums {
  R peak;             // largest logit
  R others;           // sum of the terms without the own class
  R own;              // the own class's term
  R own_logit;        // its logit
  R own_weight;       // its class weight
  R side;             // sum of u * (peak - logit)
  R side_weight;      // sum of u without the own class (Own::target: over all classes)
  R own_side_weight;  // u of the own class
  R gradient_scale;   // d(result) / d(this row's loss)
};

template <class R>
struct RowResult {
  R loss;
  R lse;          // log-sum-exp of the logits
  R scale;        // what a term is multiplied by in map
  R offset;       // for map, as the formula likes
  R log_total;    // log of the sum of the terms
  R own;          // the own class's output
  R peak = R(0);  // as it came, set by the frame
};

// A result in the elements' arithmetic type, for map.
template <class A>
struct RowCoefficients {
  A peak, scale, offset, log_total;
};

// The reference of terms that are no exponentials.
struct NoReference {
  template <class A>
  FUSED_ML_INLINE static NoReference make(A) {
    return {};
  }
  template <int N>
  struct Lanes {
    FUSED_ML_INLINE NoReference get(int64_t) const { return {}; }
    FUSED_ML_INLINE void set(int64_t, NoReference) {}
  };
};

}  // namespace FUSED_ML_NAMESPACE
