// One instruction set's pointwise operators.
#pragma once

#include "../formulas/binary_cross_entropy.h"
#include "../formulas/logsigmoid.h"
#include "pointwise.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
void run_pointwise_in(PointwiseOp op, const PointwiseOptions& o, const PointwiseArguments& a) {
  switch (op) {
    case PointwiseOp::binary_cross_entropy:
      return pointwise<BinaryCrossEntropy<A>, A>({}, a);
    case PointwiseOp::focal_binary_cross_entropy:
      return pointwise<FocalBinaryCrossEntropy<A>, A>(
          {static_cast<A>(o.focal_gamma), static_cast<A>(o.focal_alpha), static_cast<A>(o.label_smoothing),
           static_cast<A>(o.ignore_index)},
          a);
    case PointwiseOp::logsigmoid:
      return pointwise<LogSigmoid<A>, A>({}, a);
  }
}

void run_pointwise(PointwiseOp op, const PointwiseOptions& options, const PointwiseArguments& a) {
  a.x.type == DType::float64 ? run_pointwise_in<double>(op, options, a)
                             : run_pointwise_in<float>(op, options, a);
}

}  // namespace FUSED_ML_NAMESPACE
