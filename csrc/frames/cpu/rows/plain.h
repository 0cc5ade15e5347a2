// Rows whose sum needs nothing first and whose output needs the sum alone: softmax's backward passes. What
// the other loops keep of a row costs more here than its arithmetic, so this one keeps nothing but the
// operands.
#pragma once

namespace FUSED_ML_NAMESPACE {

// Rows of fewer classes, side by side in memory, are cheaper by way of a tile.
constexpr int64_t kLeastPlainClasses = 24;
// Of more, a tile's operands outgrow the second-level cache; it has so many rows at least, so that memory is
// read in runs.
constexpr int64_t kMostPlainClasses = 1024;
constexpr int64_t kLeastLanes = 32;
constexpr int kTogether = 4;  // classes whose terms are added before they go to float64

constexpr int64_t kRowsTogether = 16, kElementsTogether = 1024;

// Terms that need nothing first and nothing else.
template <class F>
constexpr bool kIsPlain =
    !F::kPeak && F::kOwn == Own::none && !F::kKeepTerms && !F::kSide && F::kTwoInputs && !F::kSecond;

// Adds the terms of kClasses classes, whose lanes are rows: to each other in the arithmetic type, then to the
// sums in float64.
template <int kClasses, class F, class A>
FUSED_ML_INLINE void add_terms(const F& f, const A* const* g, const A* const* p, int64_t count,
                               double* __restrict sum) {
  const F formula = f;
  const A *g0 = g[0], *g1 = g[kClasses > 1 ? 1 : 0], *g2 = g[kClasses > 2 ? 2 : 0], *g3 = g[kClasses - 1];
  const A *p0 = p[0], *p1 = p[kClasses > 1 ? 1 : 0], *p2 = p[kClasses > 2 ? 2 : 0], *p3 = p[kClasses - 1];
  const auto term = [=](const A* left, const A* right, int64_t l) {
    return formula.term(NoReference{}, left[l], right[l], true);
  };
#pragma GCC ivdep
  for (int64_t l = 0; l < count; ++l) {
    A terms = term(g0, p0, l);
    if constexpr (kClasses == 2) terms += term(g1, p1, l);
    if constexpr (kClasses == 4) terms = (terms + term(g1, p1, l)) + (term(g2, p2, l) + term(g3, p3, l));
    sum[l] += static_cast<double>(terms);
  }
}
// As many as there are, up to kTogether.
template <class F, class A>
FUSED_ML_INLINE void add_classes(const F& f, const A* const* g, const A* const* p, int64_t classes,
                                 int64_t count, double* sum) {
  if (classes == kTogether) return add_terms<kTogether>(f, g, p, count, sum);
  if (classes >= 2) add_terms<2>(f, g, p, count, sum);
  if (classes % 2) add_terms<1>(f, g + classes - 1, p + classes - 1, count, sum);
}

template <class F, class A>
RowCoefficients<A> plain_coefficients(const F& f, double sum) {
  RowSums<double> sums{};
  sums.others = sum;
  const RowResult<double> result = f.finish(sums);
  return {A(0), static_cast<A>(result.scale), static_cast<A>(result.offset),
          static_cast<A>(result.log_total)};
}

template <class F, class A>
class PlainLoop {
 public:
  PlainLoop(const F& formula, const RowwiseArguments& arguments)
      : f(formula),
        a(arguments),
        by_lanes(a.inner >= kStep && a.y.by_inner == 1 && a.out.by_inner == 1 &&
                 a.classes <= kMostPlainClasses),
        by_rows(!by_lanes && a.y.by_class == 1 && a.out.by_class == 1 && near(a.x) &&
                a.classes >= kLeastPlainClasses && a.classes <= kClassBlock),
        memory_of(a, true) {
    const bool scratch = !in_place(a.x) || !in_place(a.y);
    const int64_t fitting = (scratch ? kTileElements : 4 * kTileElements) / a.classes / kStep * kStep;
    width = fitting < kLeastLanes ? kLeastLanes : fitting > kTileRows ? kTileRows : fitting;
  }

  // Whether the strides are such that it pays; the gradient's are free where lanes are rows.
  bool pays() const { return by_lanes || by_rows; }

  void run() const { by_lanes ? run_tiles() : run_rows(); }

 private:
  const F f;
  const RowwiseArguments& a;
  const bool by_lanes, by_rows;
  const TileMemory<A> memory_of;
  int64_t width;  // of a tile, in rows

  void run_tiles() const {
    const int64_t tiles = divide_up(a.inner, width);  // of an outer index
    run_parallel(a.rows / a.inner * tiles, divide_up(kTaskElements, width * a.classes),
                 [&](int64_t begin, int64_t end) {
                   const int64_t size = a.classes * width;
                   A* x = static_cast<A*>(thread_scratch(Scratch::task, 2 * size * sizeof(A)));
                   for (int64_t task = begin; task < end; ++task) {
                     run_tile(task / tiles * a.inner + task % tiles * width, x, x + size);
                   }
                   finish_past();
                 });
  }

  // Rows [row, row + width), or up to the end of the inner dimension.
  void run_tile(int64_t row, A* x, A* y) const {
    const int64_t left = a.inner - row % a.inner, count = left < width ? left : width;
    double sum[kTileRows];
    for (int64_t l = 0; l < count; ++l) sum[l] = 0;
    const int64_t g_row = offset_of(a.x, a.inner, row), p_row = offset_of(a.y, a.inner, row);
    const Lines g_lines(*this, a.x, a.type, row, count), p_lines(*this, a.y, a.type, row, count),
        out_lines(*this, a.out, a.out_type, row, count);
    const bool past = memory_of.past_caches(a.out);
    for (int64_t c = 0; c < a.classes; c += kTogether) {
      const int64_t here = a.classes - c < kTogether ? a.classes - c : kTogether;
      const A *g[kTogether], *p[kTogether];
      for (int64_t i = 0; i < here; ++i) {
        if (c + i + kTogether < a.classes) {
          g_lines.template ask_for<0>(c + i + kTogether);
          p_lines.template ask_for<0>(c + i + kTogether);
        }
        if (!past) out_lines.template ask_for<1>(c + i);
        g[i] = lanes(a.x, g_row + (c + i) * a.x.by_class, count, x + (c + i) * width);
        p[i] = lanes(a.y, p_row + (c + i) * a.y.by_class, count, y + (c + i) * width);
      }
      add_classes(f, g, p, here, count, sum);
    }
    A offset[kTileRows];
    for (int64_t l = 0; l < count; ++l) offset[l] = plain_coefficients<F, A>(f, sum[l]).offset;
    const A* g = in_place(a.x) ? array(a.x) + g_row : x;
    const A* p = in_place(a.y) ? array(a.y) + p_row : y;
    const int64_t g_step = in_place(a.x) ? a.x.by_class : width,
                  p_step = in_place(a.y) ? a.y.by_class : width;
    with_type<A>(a.out_type, a.out.data, [&](auto* base) {
      auto* out = base + offset_of(a.out, a.inner, row);
      for (int64_t c = 0; c < a.classes; ++c) {
        map_lanes(g + c * g_step, p + c * p_step, offset, count, past, out + c * a.out.by_class);
      }
    });
  }

  // The memory of a tile's classes, asked for ahead of its use.
  struct Lines {
    const char* first;
    int64_t step, bytes;

    Lines(const PlainLoop& loop, const Stream& s, DType type, int64_t row, int64_t count)
        : first(element(s, type, loop.a.inner, row)),
          step(s.by_class * static_cast<int64_t>(bytes_of(type))),
          bytes(s.by_inner == 1 ? count * static_cast<int64_t>(bytes_of(type)) : 0) {}
    template <int kWrite>
    FUSED_ML_INLINE void ask_for(int64_t c) const {
      for (int64_t line = 0; line < bytes; line += kLine) __builtin_prefetch(first + c * step + line, kWrite);
    }
  };

  // Whether lanes are read where they are.
  bool in_place(const Stream& s) const { return a.type == arithmetic_dtype<A> && s.by_inner == 1; }
  static const A* array(const Stream& s) { return static_cast<const A*>(s.data); }
  // A class of a tile, from element `at` on, in the arithmetic type: where it is, or in scratch.
  FUSED_ML_INLINE const A* lanes(const Stream& s, int64_t at, int64_t count, A* scratch) const {
    if (in_place(s)) return array(s) + at;
    with_type<A>(a.type, s.data, [&](auto* base) { load_strided(base + at, s.by_inner, count, scratch); });
    return scratch;
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

  // Several short rows at once: what is converted is converted in one run, and no row's output waits for its
  // sum.
  void run_rows() const {
    const int64_t fitting = kElementsTogether / a.classes;
    const int64_t together = fitting < 1 ? 1 : fitting > kRowsTogether ? kRowsTogether : fitting;
    const int64_t size = together * a.classes;
    run_parallel(a.rows, divide_up(kTaskElements, a.classes), [&](int64_t begin, int64_t end) {
      A* scratch = static_cast<A*>(thread_scratch(Scratch::task, 3 * size * sizeof(A)));
      for (int64_t row = begin; row < end;) {
        int64_t count = a.inner - row % a.inner;
        if (count > end - row) count = end - row;
        if (count > together) count = together;
        const Rows x = fetch(a.x, row, count, scratch), y = fetch(a.y, row, count, scratch + size);
        const int64_t at = offset_of(a.out, a.inner, row);
        if (a.out_type == arithmetic_dtype<A>) {
          map_rows(x, y, count, const_cast<A*>(array(a.out)) + at, a.out.by_inner);
        } else {
          A* out = scratch + 2 * size;
          map_rows(x, y, count, out, a.classes);
          with_type<A>(a.out_type, a.out.data, [&](auto* base) {
            each_run(a.out, count, [&](int64_t first, int64_t elements) {
              store_run(out + first * a.classes, elements, base + at + first * a.out.by_inner);
            });
          });
        }
        row += count;
      }
    });
  }

  struct Rows {
    const A* first;
    int64_t step;
  };
  // Rows in the arithmetic type: where they are, or in scratch.
  Rows fetch(const Stream& s, int64_t row, int64_t count, A* scratch) const {
    const int64_t at = offset_of(s, a.inner, row);
    if (a.type == arithmetic_dtype<A> && s.by_class == 1) return {array(s) + at, s.by_inner};
    with_type<A>(a.type, s.data, [&](auto* base) {
      each_run(s, count, [&](int64_t first, int64_t elements) {
        load_strided(base + at + first * s.by_inner, s.by_class, elements, scratch + first * a.classes);
      });
    });
    return {scratch, a.classes};
  }
  // Calls body(first row, elements at one distance from there).
  template <class Body>
  FUSED_ML_INLINE void each_run(const Stream& s, int64_t rows, const Body& body) const {
    const int64_t together = s.by_inner == s.by_class * a.classes ? rows : 1;
    for (int64_t row = 0; row < rows; row += together) body(row, together * a.classes);
  }
  // Sums as RowLoop's.
  void map_rows(const Rows& x, const Rows& y, int64_t count, A* out, int64_t out_step) const {
    const F formula = f;
    const int64_t classes = a.classes;
    A offset[kRowsTogether];
    for (int64_t i = 0; i < count; ++i) {
      const A *g = x.first + i * x.step, *p = y.first + i * y.step;
      const auto term = [=](int64_t j) { return formula.term(NoReference{}, g[j], p[j], true); };
      offset[i] = plain_coefficients<F, A>(formula, sum_by_fours(classes, term)).offset;
    }
    for (int64_t i = 0; i < count; ++i) {
      const A *g = x.first + i * x.step, *p = y.first + i * y.step, by = offset[i];
      A* to = out + i * out_step;
#pragma GCC ivdep
      for (int64_t j = 0; j < classes; ++j)
        to[j] = formula.map(g[j], p[j], A(0), A(0), {A(0), A(0), by, A(0)});
    }
  }
};

}  // namespace FUSED_ML_NAMESPACE
