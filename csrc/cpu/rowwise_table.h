// The rowwise operators: which formula, in which arithmetic.
#pragma once

#include "../formulas/softmax.h"
#include "rowwise.h"
#include "rowwise_pick.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
void run_rowwise(RowwiseOp op, const RowwiseOptions& options, const RowwiseArguments& a) {
  const A sign = static_cast<A>(options.sign);
  const CrossEntropyOptions<A> o{static_cast<A>(options.label_smoothing),
                                 static_cast<A>(options.label_smoothing / static_cast<double>(a.classes)),
                                 static_cast<A>(options.z_loss), static_cast<A>(options.softcap)};
  switch (op) {
    case RowwiseOp::cross_entropy_plain:
      return rowwise<CrossEntropyPlain<A>, A>({o}, a);
    case RowwiseOp::cross_entropy_class:
      return rowwise<CrossEntropyClass<A>, A>({o}, a);
    case RowwiseOp::cross_entropy_distribution:
      return rowwise<CrossEntropyDistribution<A>, A>({{o}}, a);
    case RowwiseOp::softmax:
      return rowwise<Softmax<A>, A>({sign}, a);
    case RowwiseOp::log_softmax:
      return rowwise<LogSoftmax<A>, A>({}, a);
    case RowwiseOp::softmax_backward:
      return rowwise<SoftmaxBackward<A>, A>({sign}, a);
    case RowwiseOp::log_softmax_backward:
      return rowwise<LogSoftmaxBackward<A>, A>({{sign}}, a);
    case RowwiseOp::pick:
      return PickLoop<A>(a).run();
    case RowwiseOp::pick_backward:
      return PickLoop<A>(a).run_backward();
  }
}

inline void rowwise_table(RowwiseOp op, const RowwiseOptions& options, const RowwiseArguments& a) {
  a.type == DType::float64 ? run_rowwise<double>(op, options, a) : run_rowwise<float>(op, options, a);
}

}  // namespace FUSED_ML_NAMESPACE
