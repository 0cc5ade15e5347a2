// The rowwise operators' CPU side.
#include "operators/rows_call.h"

#include <algorithm>

#include "operators/tensors.h"
#include "frames/cpu/parallel.h"

namespace fused_ml {

namespace {

int64_t target_of(const RowwiseArguments& a, int64_t row) {
  switch (a.target_bytes) {
    case 1:
      return static_cast<const uint8_t*>(a.target)[row];
    case 4:
      return static_cast<const int32_t*>(a.target)[row];
    default:
      return static_cast<const int64_t*>(a.target)[row];
  }
}

// 1 + the first row whose target is out of range, or 0.
int64_t first_bad_row(const RowwiseArguments& a) {
  for (int64_t row = 0; a.target && row < a.rows; ++row) {
    const int64_t own = target_of(a, row);
    if (own != a.ignore_index && (own < 0 || own >= a.classes)) return row + 1;
  }
  return 0;
}

// The sum over rows [begin, end) that count of the weights of row and class, where there are any.
template <class A>
double weigh_rows(const RowwiseArguments& a, const A* by_class, const A* by_row, int64_t begin, int64_t end) {
  double sum = 0;
  for (int64_t row = begin; row < end; ++row) {
    double weight = by_row ? static_cast<double>(by_row[row]) : 1.0;
    if (a.target) {
      const int64_t own = target_of(a, row);
      if (own == a.ignore_index || own < 0 || own >= a.classes) continue;
      if (by_class) weight *= static_cast<double>(by_class[own]);
    }
    sum += weight;
  }
  return sum;
}

// Sum over the rows that count of the weights of row and class: what `mean` divides by.
template <class A>
double sum_of_weights(const RowwiseArguments& a, bool count_class_weights) {
  const A* by_class = count_class_weights ? static_cast<const A*>(a.class_weight) : nullptr;
  const A* by_row = static_cast<const A*>(a.row_weight);
  if (!a.target && !by_row) return static_cast<double>(a.rows);
  constexpr int64_t kChunk = 16384;  // summed apart, in order: the same bits for any number of threads
  const auto sum_of_chunk = [&](int64_t chunk) {
    const int64_t first = chunk * kChunk, last = std::min(a.rows, first + kChunk);
    return by_class || by_row ? weigh_rows(a, by_class, by_row, first, last)
                              : static_cast<double>(kernels().count_rows(a, first, last));
  };
  if (a.rows <= kChunk) return sum_of_chunk(0);
  std::vector<double> sums(divide_up(a.rows, kChunk));
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) sums[chunk] = sum_of_chunk(chunk);
  };
  torch::stable::parallel_for(0, static_cast<int64_t>(sums.size()), 1, body);
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

double denominator_of(const RowwiseCall& call) {
  if (!call.mean) return 1;
  if (call.normalizer) return number_in(*call.normalizer);
  const RowwiseArguments& a = call.arguments;
  return a.type == DType::float64 ? sum_of_weights<double>(a, call.count_class_weights)
                                  : sum_of_weights<float>(a, call.count_class_weights);
}

}  // namespace

const bool kOwnClassBackwardZeroes = true;

void run_rowwise(const Tensor&, RowwiseCall& call) {
  RowwiseArguments& a = call.arguments;
  const double denominator = denominator_of(call);
  a.gradient_scale = call.gradient ? number_in(*call.gradient) : 1;
  // A denominator of 0: nothing counts, zero gradient, NaN loss.
  a.gradient_scale = denominator == 0 ? 0 : a.gradient_scale / denominator;
  double sum = 0;
  if (call.loss) a.loss_sum = &sum;
  // A bad target must change nothing: with the gradient over the input there is no second look.
  int64_t bad_row = a.in_place ? first_bad_row(a) : 0;
  a.bad_row = &bad_row;
  if (!bad_row) kernels().rowwise(call.op, call.options, a);
  STD_TORCH_CHECK(!bad_row, call.name, ": target ", target_of(a, bad_row - 1), " of row ", bad_row - 1,
                  " is out of bounds: expected a class in [0, ", a.classes, ") or ignore_index (",
                  a.ignore_index, ")");
  if (call.loss) set_number(*call.loss, sum / denominator);
  if (call.denominator) set_number(*call.denominator, denominator);
}

}  // namespace fused_ml
