// Rows whose sum needs nothing first and whose output needs the sum alone: softmax's backward passes. What
// the other loops keep of a row costs more here than its arithmetic, so this one keeps nothing but the
// operands.
#pragma once

namespace FUSED_ML_NAMESPACE {

// Rows of fewer classes, side by side in memory, are cheaper by way of a tile.
constexpr int64_t kLeastPlainClasses = 64;
// Of more, a tile's operands outgrow the second-level cache; it has so many rows at least, so that memory is
// read in runs.
constexpr int64_t kMostPlainClasses = 1024;
constexpr int64_t kLeastLanes = 32;

template <class F, class A>
class PlainLoop {
 public:
  // Terms that need nothing first and nothing else.
  static constexpr bool kFits =
      !F::kPeak && F::kOwn == Own::none && !F::kKeepTerms && !F::kSide && F::kTwoInputs && !F::kSecond;

  PlainLoop(const F& formula, const RowwiseArguments& arguments)
      : f(formula),
        a(arguments),
        by_lanes(a.inner >= kStep && a.y.by_inner == 1 && a.out.by_inner == 1 &&
                 a.classes <= kMostPlainClasses),
        by_rows(!by_lanes && a.y.by_class == 1 && a.out.by_class == 1 && near(a.x) &&
                a.classes >= kLeastPlainClasses && a.classes <= kFewClasses<A>),
        memory_of(a, true) {
    const int64_t fitting = kTileElements / a.classes / kStep * kStep;
    width = fitting < kLeastLanes ? kLeastLanes : fitting > kTileRows ? kTileRows : fitting;
  }

  // Whether the strides are such that it pays; the gradient's are free where lanes are rows.
  bool pays() const { return by_lanes || by_rows; }

  void run() const {
    const int64_t tiles = by_lanes ? divide_up(a.inner, width) : 1;  // of an outer index
    const int64_t tasks = by_lanes ? a.rows / a.inner * tiles : a.rows;
    run_parallel(tasks, divide_up(kTaskElements, (by_lanes ? width : 1) * a.classes),
                 [&](int64_t begin, int64_t end) {
                   const int64_t size = divide_up(a.classes, kStep) * kStep * (by_lanes ? width : 1);
                   A* x = static_cast<A*>(thread_scratch(Scratch::task, 3 * size * sizeof(A)));
                   for (int64_t task = begin; task < end; ++task) {
                     if (by_lanes) {
                       run_tile(task / tiles * a.inner + task % tiles * width, x, x + size);
                     } else {
                       run_row(task, x, x + size, x + 2 * size);
                     }
                   }
                   finish_past();
                 });
  }

 private:
  const F f;
  const RowwiseArguments& a;
  const bool by_lanes, by_rows;
  const TileMemory<A> memory_of;
  int64_t width;  // of a tile, in rows

  RowCoefficients<A> coefficients(double sum) const {
    RowSums<double> sums{};
    sums.others = sum;
    const RowResult<double> result = f.finish(sums);
    return {A(0), static_cast<A>(result.scale), static_cast<A>(result.offset),
            static_cast<A>(result.log_total)};
  }

  // Rows [row, row + width), or up to the end of the inner dimension.
  void run_tile(int64_t row, A* x, A* y) const {
    const int64_t left = a.inner - row % a.inner, count = left < width ? left : width;
    double sum[kTileRows];
    for (int64_t l = 0; l < count; ++l) sum[l] = 0;
    with_type<A>(a.type, a.x.data, [&](auto* base) {
      const auto* g = base + offset_of(a.x, a.inner, row);
      const auto* p = static_cast<decltype(g)>(a.y.data) + offset_of(a.y, a.inner, row);
      for (int64_t c = 0; c < a.classes; ++c, g += a.x.by_class, p += a.y.by_class) {
        take(g, p, count, x + c * width, y + c * width, sum);
      }
    });
    A offset[kTileRows];
    for (int64_t l = 0; l < count; ++l) offset[l] = coefficients(sum[l]).offset;
    const bool past = memory_of.past_caches(a.out);
    with_type<A>(a.out_type, a.out.data, [&](auto* base) {
      auto* out = base + offset_of(a.out, a.inner, row);
      for (int64_t c = 0; c < a.classes; ++c, out += a.out.by_class) {
        map_lanes(x + c * width, y + c * width, offset, count, past, out);
      }
    });
  }

  // A class of a tile: its operands are kept, in the arithmetic type, and its terms added.
  template <class T>
  FUSED_ML_INLINE void take(const T* g, const T* p, int64_t count, A* x, A* y, double* sum) const {
    if (a.x.by_inner == 1) return add_terms<true>(g, p, count, x, y, sum);
    load_strided(g, a.x.by_inner, count, x);
    add_terms<false>(g, p, count, x, y, sum);
  }
  template <bool kLoad, class T>
  FUSED_ML_INLINE void add_terms(const T* __restrict g, const T* __restrict p, int64_t count, A* __restrict x,
                                 A* __restrict y, double* __restrict sum) const {
    const F formula = f;
    const auto add = [=](int64_t l) {
      const A left = kLoad ? static_cast<A>(load(g + l)) : x[l], right = static_cast<A>(load(p + l));
      if (kLoad) x[l] = left;
      y[l] = right;
      sum[l] += formula.term(NoReference{}, static_cast<double>(left), static_cast<double>(right), true);
    };
    int64_t l = 0;
    for (; l + kStep <= count; l += kStep) {
      if (kLoad) __builtin_prefetch(g + a.x.by_class + l);
      __builtin_prefetch(p + a.y.by_class + l);
      FUSED_ML_LANES
      for (int i = 0; i < kStep; ++i) add(l + i);
    }
    for (; l < count; ++l) add(l);
  }

  template <class T>
  FUSED_ML_INLINE void map_lanes(const A* __restrict x, const A* __restrict y, const A* __restrict offset,
                                 int64_t count, bool past, T* __restrict out) const {
    const F formula = f;
    const auto value = [=](int64_t l) {
      return formula.map(x[l], y[l], A(0), A(0), {A(0), A(0), offset[l], A(0)});
    };
    if (past) {  // whole steps
      for (int64_t l = 0; l < count; l += kStep) {
        A step[kStep];
        FUSED_ML_LANES
        for (int i = 0; i < kStep; ++i) step[i] = value(l + i);
        store_step_past(step, out + l);
      }
      return;
    }
#pragma GCC ivdep
    for (int64_t l = 0; l < count; ++l) store(out + l, value(l));
  }

  // Sums as RowLoop's.
  void run_row(int64_t row, A* x_buffer, A* y_buffer, A* out_buffer) const {
    const F formula = f;
    const A *x = fetch(a.x, row, x_buffer), *y = fetch(a.y, row, y_buffer);
    const double sum = sum_of(a.classes, [=](int64_t j) {
      return formula.term(NoReference{}, static_cast<double>(x[j]), static_cast<double>(y[j]), true);
    });
    const RowCoefficients<A> c = coefficients(sum);
    const bool direct = a.out_type == arithmetic_dtype<A>;
    with_type<A>(a.out_type, element(a.out, a.out_type, a.inner, row), [&](auto* out) {
      A* to = direct ? reinterpret_cast<A*>(out) : out_buffer;
#pragma GCC ivdep
      for (int64_t j = 0; j < a.classes; ++j) to[j] = formula.map(x[j], y[j], A(0), A(0), c);
      if (!direct) store_strided(to, a.classes, out, 1);
    });
  }
  const A* fetch(const Stream& s, int64_t row, A* buffer) const {
    const char* at = element(s, a.type, a.inner, row);
    if (a.type == arithmetic_dtype<A> && s.by_class == 1) return reinterpret_cast<const A*>(at);
    with_type<A>(a.type, at, [&](auto* p) { load_strided(p, s.by_class, a.classes, buffer); });
    return buffer;
  }
};

}  // namespace FUSED_ML_NAMESPACE
