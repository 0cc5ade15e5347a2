// A row reduced in blocks of classes, each relative to its own peak, and the blocks merged: for both devices.
#pragma once

#include "row.h"

namespace FUSED_ML_NAMESPACE {

template <bool kSide>
struct SideSums {
  double side = 0, side_weight = 0, own_side_weight = 0;
};
template <>
struct SideSums<false> {};

// Of a formula F's row.
template <class F, class A>
struct RowBlock : SideSums<F::kSide> {
  A peak = -Constants<A>::infinity;  // largest key
  int32_t own = -1;  // its first class, counted from the block's first; -1: not looked for, or none
  // Of the class left out; read before the terms may overwrite it.
  A own_input = A(0), own_logit = -Constants<A>::infinity;
  double sum = 0, own_term = 0;
};

// Where a block's terms stand in its row.
struct BlockScale {
  double below;   // the row's peak over the block's, in logits
  double factor;  // exp(-below)
};

template <class F, class A>
FUSED_ML_INLINE BlockScale scale_of(const F& f, const RowBlock<F, A>& block, double peak, bool holds_peak) {
  if (!F::kPeak || holds_peak) return {0.0, 1.0};
  const double below = peak - f.logit(block.peak);
  return {below, exp(-below)};
}

// Adds a block to its row's sums. holds_own: the block whose left-out class is the row's.
template <class F, class A>
FUSED_ML_INLINE void add_block(const RowBlock<F, A>& block, const BlockScale& scale, bool holds_own,
                               RowSums<double>& s) {
  s.others += (block.sum + (holds_own ? 0 : block.own_term)) * scale.factor;
  if (holds_own) s.own += block.own_term * scale.factor;
  if constexpr (F::kSide) {
    const double weight = block.side_weight + (holds_own ? 0 : block.own_side_weight);
    const double moved = weight + (F::kOwn == Own::peak && holds_own ? block.own_side_weight : 0);
    s.side += block.side + (moved == 0 ? 0 : scale.below * moved);
    s.side_weight += weight;
    if (holds_own) s.own_side_weight += block.own_side_weight;
  }
}

}  // namespace FUSED_ML_NAMESPACE
