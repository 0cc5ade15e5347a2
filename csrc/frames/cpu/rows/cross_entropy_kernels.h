// One instruction set's cross entropy.
#pragma once

#include "formulas/rows/cross_entropy.h"
#include "frame.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
void run_cross_entropy_in(RowwiseOp op, const RowwiseOptions& options, const RowwiseArguments& a) {
  const CrossEntropyOptions<A> o{static_cast<A>(options.label_smoothing),
                                 static_cast<A>(options.label_smoothing / static_cast<double>(a.classes)),
                                 static_cast<A>(options.z_loss), static_cast<A>(options.softcap)};
  const bool capped = o.softcap != A(0);
  if (op == RowwiseOp::cross_entropy_plain) return rowwise<CrossEntropyPlain<A>, A>({o}, a);
  if (op == RowwiseOp::cross_entropy_class) {
    return capped ? rowwise<CrossEntropyClass<A>, A>({o}, a)
                  : rowwise<CrossEntropyClass<A, false>, A>({o}, a);
  }
  return capped ? rowwise<CrossEntropyDistribution<A>, A>({{o}}, a)
                : rowwise<CrossEntropyDistribution<A, false>, A>({{o}}, a);
}

void run_cross_entropy(RowwiseOp op, const RowwiseOptions& options, const RowwiseArguments& a) {
  a.type == DType::float64 ? run_cross_entropy_in<double>(op, options, a)
                           : run_cross_entropy_in<float>(op, options, a);
}

}  // namespace FUSED_ML_NAMESPACE
