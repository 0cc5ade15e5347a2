// One instruction set's rowwise operators; cross entropy is compiled on its own.
#pragma once

#include "formulas/rows/softmax.h"
#include "frame.h"
#include "own_class.h"

namespace FUSED_ML_NAMESPACE {

void run_cross_entropy(RowwiseOp op, const RowwiseOptions& options, const RowwiseArguments& a);

template <class A>
void run_rowwise_in(RowwiseOp op, const RowwiseOptions& options, const RowwiseArguments& a) {
  const A sign = static_cast<A>(options.sign);
  switch (op) {
    case RowwiseOp::softmax:
      return rowwise<Softmax<A>, A>({sign}, a);
    case RowwiseOp::log_softmax:
      return rowwise<LogSoftmax<A>, A>({}, a);
    case RowwiseOp::softmax_backward:
      return rowwise<SoftmaxBackward<A>, A>({sign}, a);
    case RowwiseOp::log_softmax_backward:
      return rowwise<LogSoftmaxBackward<A>, A>({{sign}}, a);
    case RowwiseOp::own_class:
      return OwnClassLoop<A>(a).run();
    case RowwiseOp::own_class_backward:
      return OwnClassLoop<A>(a).run_backward();
    default:
      return run_cross_entropy(op, options, a);
  }
}

template <class Index>
int64_t count_rows(const RowwiseArguments& a, const Index* targets, int64_t begin, int64_t end) {
  const uint64_t classes = static_cast<uint64_t>(a.classes);
  const int64_t ignore = a.ignore_index;
  int64_t count = 0;
#pragma omp simd reduction(+ : count)
  for (int64_t row = begin; row < end; ++row) {
    const int64_t own = static_cast<int64_t>(targets[row]);
    count += static_cast<int64_t>((own != ignore) & (static_cast<uint64_t>(own) < classes));
  }
  return count;
}
int64_t count_rows(const RowwiseArguments& a, int64_t begin, int64_t end) {
  if (a.target_bytes == 1) return count_rows(a, static_cast<const uint8_t*>(a.target), begin, end);
  if (a.target_bytes == 4) return count_rows(a, static_cast<const int32_t*>(a.target), begin, end);
  return count_rows(a, static_cast<const int64_t*>(a.target), begin, end);
}

void run_rowwise(RowwiseOp op, const RowwiseOptions& options, const RowwiseArguments& a) {
  a.type == DType::float64 ? run_rowwise_in<double>(op, options, a) : run_rowwise_in<float>(op, options, a);
}

}  // namespace FUSED_ML_NAMESPACE
