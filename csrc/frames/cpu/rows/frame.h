// The rowwise frame: one row of classes at a time, reduce then map. No mathematics, no torch.
//
// A formula F gives, for arithmetic type A:
//   kPeak       the reduction starts from the row's maximum of A key(A x); A logit(A key) is monotone
//   Reference   made from the peak, for term(reference, x, y, counts); parts(term) is the term
//   kOwn        the class left out of the sum: none, the row's target, or the first maximum
//   kSide       two more sums, over u = weigh(w, y): of u * (peak - logit), and of u
//   kKeepTerms  map needs the terms again; kMapReadsInput: and x or y
//   finish(RowSums<R>) -> RowResult<R>                             A map(x, y, w, term, RowCoefficients<A>)
//   kOwn != none: the own class's output is map_own(x, result.own); kSecond: a second output, map_second(...)
//
// Two loops carry everything: RowLoop, whose lanes are classes, and ColumnLoop, whose lanes are rows.
// PlainLoop and StackedLoop are short ways for formulas that need a sum and nothing else.
#pragma once

#include "formulas/row_blocks.h"
#include "frames/cpu/vectors/convert.h"
#include "term_sums.h"
#include "frames/cpu/vectors/transpose.h"

namespace FUSED_ML_NAMESPACE {

// Up to here contiguous rows are transposed into columns: what a row costs beside its classes is then shared
// by the lanes. 65 classes: 1.35 -> 0.41 ns an element, 256 about the same; log-softmax breaks even at 120.
template <class A>
constexpr int64_t kFewClasses = 640 / sizeof(A);

// A row's class and weights, read from the arguments.
template <class A>
struct Chosen {
  int64_t own;  // -1: ignored, or none
  bool keep;
  A weight, loss_scale, gradient_scale;
};

inline int64_t target_at(const RowwiseArguments& a, int64_t row) {
  switch (a.target_bytes) {
    case 1:
      return static_cast<const uint8_t*>(a.target)[row];
    case 4:
      return static_cast<const int32_t*>(a.target)[row];
    default:
      return static_cast<const int64_t*>(a.target)[row];
  }
}

template <class A>
FUSED_ML_INLINE Chosen<A> chosen_at(const RowwiseArguments& a, int64_t row) {
  Chosen<A> c{-1, true, A(1), A(1), static_cast<A>(a.gradient_scale)};
  if (a.target) {
    c.own = target_at(a, row);
    c.keep = c.own != a.ignore_index;
    if (c.keep && (c.own < 0 || c.own >= a.classes)) {
      __atomic_store_n(a.bad_row, row + 1, __ATOMIC_RELAXED);
      c.keep = false;
    }
    if (!c.keep) c.own = -1;
    if (c.keep && a.class_weight) c.weight = static_cast<const A*>(a.class_weight)[c.own];
  }
  if (a.row_weight) c.loss_scale = static_cast<const A*>(a.row_weight)[row];
  if (a.row_gradient) c.gradient_scale *= static_cast<const A*>(a.row_gradient)[row];
  c.gradient_scale *= c.loss_scale;
  return c;
}

// Whether every stream that is there has stride 1 along the dimension.
inline bool all_unit(const RowwiseArguments& a, int64_t Stream::* stride) {
  const Stream* streams[] = {&a.x, &a.y, &a.out, &a.out2};
  for (const Stream* s : streams) {
    if (s->data && s->*stride != 1) return false;
  }
  return true;
}

// Whether a row's classes lie side by side or share lines with few others', in every stream that is there.
inline bool near(const Stream& s) { return s.by_class >= 0 && s.by_class <= kNearClasses; }
inline bool all_near(const RowwiseArguments& a) {
  const Stream* streams[] = {&a.x, &a.y, &a.out, &a.out2};
  for (const Stream* s : streams) {
    if (s->data && !near(*s)) return false;
  }
  return true;
}

}  // namespace FUSED_ML_NAMESPACE

#include "tile_memory.h"
#include "lane_rows.h"
#include "across_rows.h"
#include "written_past_caches.h"
#include "row_terms.h"
#include "along_classes.h"
#include "plain.h"
#include "stacked.h"

namespace FUSED_ML_NAMESPACE {

template <class F, class A>
void rowwise(const F& formula, const RowwiseArguments& a) {
  if constexpr (kIsPlain<F>) {
    const StackedLoop<F, A> stacked(formula, a);
    if (stacked.pays()) return stacked.run();
    const PlainLoop<F, A> plain(formula, a);
    if (plain.pays()) return plain.run();
  }
  if (a.classes > kFewClasses<A> && all_near(a)) {
    RowLoop<F, A>(formula, a).run();
  } else {
    ColumnLoop<F, A>(formula, a).run();
  }
}

}  // namespace FUSED_ML_NAMESPACE
