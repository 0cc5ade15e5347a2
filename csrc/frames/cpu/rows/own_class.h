// Rows of which only the own class is read, or written: nothing to reduce or map.
#pragma once

namespace FUSED_ML_NAMESPACE {

template <class A>
class OwnClassLoop {
  using Rows = LaneRows<A>;

 public:
  explicit OwnClassLoop(const RowwiseArguments& arguments)
      : a(arguments), tasks(divide_up(a.rows, kTaskRows)) {}

  // loss = -weight * x[own]
  void run() const {
    double* sums = static_cast<double*>(thread_scratch(Scratch::call, tasks * sizeof(double)));
    with_type<A>(a.type, a.x.data, [&](const auto* x) {
      run_parallel(tasks, 4, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          sums[task] = 0;
          each_piece(task, [&](const TileRows& t, const Rows& r) { sums[task] += own_losses(t, r, x); });
        }
      });
    });
    if (a.loss_sum) *a.loss_sum = sum_in_order(sums, tasks);
  }

  // out = 0 but -weight * gradient at the own class.
  void run_backward() const {
    with_type<A>(a.out_type, a.out.data, [&](auto* out) {
      const int64_t grain = divide_up(kTaskElements, kTaskRows * a.classes);
      run_parallel(tasks, grain, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          each_piece(task, [&](const TileRows& t, const Rows& r) { place(t, r, out); });
        }
      });
    });
  }

 private:
  static constexpr int64_t kTaskRows = 1024, kZeroBytes = 65536;
  const RowwiseArguments& a;
  const int64_t tasks;

  // Calls body(rows next to each other, what is chosen of them).
  template <class Body>
  FUSED_ML_INLINE void each_piece(int64_t task, const Body& body) const {
    const int64_t begin = task * kTaskRows, end = begin + kTaskRows < a.rows ? begin + kTaskRows : a.rows;
    Rows r;
    r.choose_constants(a);
    for (int64_t row = begin; row < end;) {
      TileRows t{row, a.inner - row % a.inner};
      if (t.rows > end - row) t.rows = end - row;
      if (t.rows > kTileRows) t.rows = kTileRows;
      r.choose(a, t);
      body(t, r);
      row += t.rows;
    }
  }

  // The loads of a piece's rows wait for memory together, and for no sum.
  template <class T>
  double own_losses(const TileRows& t, const Rows& r, const T* base) const {
    const T* x = base + offset_of(a.x, a.inner, t.row);
    A losses[kTileRows];
    for (int64_t l = 0; l < t.rows; ++l) {
      const bool there = r.own[l] != Rows::kNoClass;
      const int64_t own = there ? static_cast<int64_t>(r.own[l]) : 0;
      const A value = load(x + l * a.x.by_inner + own * a.x.by_class);
      losses[l] = select(there, -r.own_weight[l] * value, A(0));
    }
    if (a.loss) memcpy(static_cast<A*>(a.loss) + t.row, losses, t.rows * sizeof(A));
    return sum_of(t.rows, [&](int64_t l) { return losses[l]; });
  }

  // Zeros, and what lies among them while it is in the cache.
  template <class T>
  void place(const TileRows& t, const Rows& r, T* base) const {
    T* out = base + offset_of(a.out, a.inner, t.row);
    if (a.out.by_class == 1) {
      const int64_t row_bytes = a.classes * static_cast<int64_t>(sizeof(T));
      const int64_t together = a.out.by_inner == a.classes ? divide_up(kZeroBytes, row_bytes) : 1;
      for (int64_t first = 0; first < t.rows; first += together) {
        const int64_t last = first + together < t.rows ? first + together : t.rows;
        memset(static_cast<void*>(out + first * a.out.by_inner), 0, (last - first) * row_bytes);
        for (int64_t l = first; l < last; ++l) place_one(r, l, out);
      }
      return;
    }
    for (int64_t c = 0; c < a.classes; ++c) {
      T* run = out + c * a.out.by_class;
      if (a.out.by_inner == 1) {
        memset(static_cast<void*>(run), 0, t.rows * sizeof(T));
      } else {
        for (int64_t l = 0; l < t.rows; ++l) store(run + l * a.out.by_inner, A(0));
      }
    }
    for (int64_t l = 0; l < t.rows; ++l) place_one(r, l, out);
  }
  template <class T>
  FUSED_ML_INLINE void place_one(const Rows& r, int64_t l, T* out) const {
    if (r.own[l] == Rows::kNoClass) return;
    store(out + l * a.out.by_inner + static_cast<int64_t>(r.own[l]) * a.out.by_class,
          -r.own_weight[l] * r.gradient_scale[l]);
  }
};

}  // namespace FUSED_ML_NAMESPACE
