// Rows of which only the own class is read, or written: nothing to reduce or map.
#pragma once

namespace FUSED_ML_NAMESPACE {

template <class A>
class PickLoop {
 public:
  explicit PickLoop(const RowwiseArguments& arguments) : a(arguments), tasks(divide_up(a.rows, kTaskRows)) {}

  // loss = -weight * x[own]
  void run() const {
    double* sums = static_cast<double*>(thread_scratch(Scratch::call, tasks * sizeof(double)));
    with_type<A>(a.type, a.x.data, [&](const auto* x) {
      run_parallel(tasks, 4, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) sums[task] = pick(task, x);
      });
    });
    if (a.loss_sum) *a.loss_sum = sum_in_order(sums, tasks);
  }

  // out = 0 but -weight * gradient at the own class; out comes zeroed.
  void run_backward() const {
    with_type<A>(a.out_type, a.out.data, [&](auto* out) {
      run_parallel(tasks, 4, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin * kTaskRows; row < last_of(end - 1); row += kPiece) {
          each_row(a.out, row, [&](int64_t, int64_t offset, const Chosen<A>& chosen) {
            if (!chosen.keep) return;
            store(out + offset + chosen.own * a.out.by_class, -chosen.weight * chosen.gradient_scale);
          });
        }
      });
    });
  }

 private:
  static constexpr int64_t kTaskRows = 4096, kPiece = 256;
  const RowwiseArguments& a;
  const int64_t tasks;

  int64_t last_of(int64_t task) const {
    return (task + 1) * kTaskRows < a.rows ? (task + 1) * kTaskRows : a.rows;
  }

  // The loads of a piece's rows wait for memory together, and for no sum.
  template <class T>
  double pick(int64_t task, const T* x) const {
    double sum = 0;
    for (int64_t first = task * kTaskRows; first < last_of(task); first += kPiece) {
      A losses[kPiece] = {};
      each_row(a.x, first, [&](int64_t row, int64_t offset, const Chosen<A>& chosen) {
        if (chosen.keep) losses[row - first] = -chosen.weight * load(x + offset + chosen.own * a.x.by_class);
        if (a.loss) static_cast<A*>(a.loss)[row] = losses[row - first];
      });
      sum += sum_of<A>(kPiece, [&](int64_t i) { return losses[i]; });
    }
    return sum;
  }

  // Calls body(row, its offset in the stream, its class) for the rows of a piece.
  template <class Body>
  FUSED_ML_INLINE void each_row(const Stream& s, int64_t first, const Body& body) const {
    const int64_t last = first + kPiece < a.rows ? first + kPiece : a.rows;
    int64_t outer = first / a.inner, inner = first % a.inner;
    for (int64_t row = first; row < last; ++row) {
      body(row, outer * s.by_outer + inner * s.by_inner, chosen_at<A>(a, row));
      if (++inner == a.inner) {
        inner = 0;
        ++outer;
      }
    }
  }
};

}  // namespace FUSED_ML_NAMESPACE
