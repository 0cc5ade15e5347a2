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
    run_parallel(tasks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        sums[task] = 0;
        each_row(task, [&](int64_t row, const Chosen<A>& chosen) {
          A loss = A(0);
          if (chosen.keep) {
            with_type<A>(a.type, element(a.x, a.type, a.inner, row),
                         [&](auto* p) { loss = -chosen.weight * load(p + chosen.own * a.x.by_class); });
          }
          sums[task] += loss;
          if (a.loss) static_cast<A*>(a.loss)[row] = loss;
        });
      }
    });
    if (a.loss_sum) *a.loss_sum = sum_in_order(sums, tasks);
  }

  // out = 0 but -weight * gradient at the own class; out comes zeroed.
  void run_backward() const {
    run_parallel(tasks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        each_row(task, [&](int64_t row, const Chosen<A>& chosen) {
          if (!chosen.keep) return;
          with_type<A>(a.out_type, element(a.out, a.out_type, a.inner, row), [&](auto* p) {
            store(p + chosen.own * a.out.by_class, -chosen.weight * chosen.gradient_scale);
          });
        });
      }
    });
  }

 private:
  static constexpr int64_t kTaskRows = 4096;
  const RowwiseArguments& a;
  const int64_t tasks;

  template <class Body>
  void each_row(int64_t task, const Body& body) const {
    const int64_t last = (task + 1) * kTaskRows < a.rows ? (task + 1) * kTaskRows : a.rows;
    for (int64_t row = task * kTaskRows; row < last; ++row) body(row, chosen_at<A>(a, row));
  }
};

}  // namespace FUSED_ML_NAMESPACE
