// Plain sums over a dimension behind which few rows lie side by side: softmax(scores, dim=0) of [nodes,
// heads]. A step of one class would be mostly empty. Here a step is several classes, one behind the other in
// memory: lane l belongs to row l % inner. Steps are summed in blocks of a fixed size, whose sums are added
// in order.
#pragma once

namespace FUSED_ML_NAMESPACE {

template <class F, class A>
class StackedLoop {
 public:
  StackedLoop(const F& formula, const RowwiseArguments& arguments)
      : f(formula),
        a(arguments),
        size(a.classes * a.inner),
        lanes(a.inner <= kTileRows ? kTileRows / a.inner * a.inner : a.inner),
        block(divide_up(kTaskElements, kTogether * lanes) * kTogether * lanes),
        blocks(divide_up(size, block)) {}

  // Where memory is one run for each outer index, and tiles of rows would be empty or too long.
  bool pays() const {
    return a.inner > 1 && a.inner <= kTileRows && size >= kTogether * kTileRows &&
           (a.inner < kStep || a.classes > kMostPlainClasses) && is_run(a.x) && is_run(a.y) && is_run(a.out);
  }

  void run() const {
    const int64_t outers = a.rows / a.inner;
    double* sums = static_cast<double*>(
        thread_scratch(Scratch::call, (outers * blocks + outers) * a.inner * sizeof(double)));
    double* totals = sums + outers * blocks * a.inner;
    const int64_t grain = divide_up(kTaskElements, size < block ? size : block);
    const auto each_block = [&](const auto& body) {
      run_parallel(outers * blocks, grain, [&](int64_t begin, int64_t end) {
        A* scratch = static_cast<A*>(thread_scratch(Scratch::task, 2 * kTogether * lanes * sizeof(A)));
        for (int64_t task = begin; task < end; ++task) body(task / blocks, task % blocks, scratch);
      });
    };
    const auto total = [&](int64_t outer) {
      for (int64_t r = 0; r < a.inner; ++r) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; ++b) sum += sums[(outer * blocks + b) * a.inner + r];
        totals[outer * a.inner + r] = sum;
      }
    };
    each_block([&](int64_t outer, int64_t b, A* scratch) {
      sum_block(outer, b, scratch, sums + (outer * blocks + b) * a.inner);
      if (blocks > 1) return;
      total(outer);  // nobody else works on these rows: they are in the cache yet
      map_block(outer, b, totals + outer * a.inner, scratch);
    });
    if (blocks == 1) return;
    for (int64_t outer = 0; outer < outers; ++outer) total(outer);
    each_block([&](int64_t outer, int64_t b, A* scratch) {
      map_block(outer, b, totals + outer * a.inner, scratch);
    });
  }

 private:
  const F f;
  const RowwiseArguments& a;
  const int64_t size;   // elements of an outer index
  const int64_t lanes;  // of a step: whole classes
  const int64_t block;  // elements, whole steps
  const int64_t blocks;

  bool is_run(const Stream& s) const { return s.by_inner == 1 && s.by_class == a.inner; }

  // Elements [at, at + count) of an outer index, in the arithmetic type: where they are, or in scratch.
  const A* run_at(const Stream& s, int64_t outer, int64_t at, int64_t count, A* scratch) const {
    const A* in_place = nullptr;
    with_type<A>(a.type, s.data, [&](auto* base) {
      const auto* from = base + outer * s.by_outer + at;
      if constexpr (std::is_same_v<decltype(base), A*>) {
        in_place = from;
      } else {
        load_run(from, count, scratch);
      }
    });
    return in_place ? in_place : scratch;
  }

  void sum_block(int64_t outer, int64_t b, A* scratch, double* sums) const {
    double lane[kTileRows];
    for (int64_t l = 0; l < lanes; ++l) lane[l] = 0;
    const int64_t end = (b + 1) * block < size ? (b + 1) * block : size;
    for (int64_t at = b * block; at < end; at += kTogether * lanes) {
      const int64_t count = end - at < kTogether * lanes ? end - at : kTogether * lanes;
      const A* x = run_at(a.x, outer, at, count, scratch);
      const A* y = run_at(a.y, outer, at, count, scratch + kTogether * lanes);
      const A *g[kTogether], *p[kTogether];
      for (int i = 0; i < kTogether; ++i) g[i] = x + i * lanes, p[i] = y + i * lanes;
      const int64_t whole = count / lanes;
      add_classes(f, g, p, whole, lanes, lane);
      if (whole < kTogether) add_terms<1>(f, g + whole, p + whole, count - whole * lanes, lane);
    }
    for (int64_t r = 0; r < a.inner; ++r) {
      sums[r] = 0;
      for (int64_t l = r; l < lanes; l += a.inner) sums[r] += lane[l];
    }
  }

  void map_block(int64_t outer, int64_t b, const double* totals, A* scratch) const {
    A offset[kTileRows];
    for (int64_t l = 0; l < lanes; ++l) offset[l] = plain_coefficients<F, A>(f, totals[l % a.inner]).offset;
    const F formula = f;
    const int64_t end = (b + 1) * block < size ? (b + 1) * block : size;
    with_type<A>(a.out_type, a.out.data, [&](auto* base) {
      for (int64_t at = b * block; at < end; at += lanes) {
        const int64_t count = end - at < lanes ? end - at : lanes;
        const A* x = run_at(a.x, outer, at, count, scratch);
        const A* y = run_at(a.y, outer, at, count, scratch + kTogether * lanes);
        auto* out = base + outer * a.out.by_outer + at;
#pragma GCC ivdep
        for (int64_t l = 0; l < count; ++l) {
          store(out + l, formula.map(x[l], y[l], A(0), A(0), {A(0), A(0), offset[l], A(0)}));
        }
      }
    });
  }
};

}  // namespace FUSED_ML_NAMESPACE
