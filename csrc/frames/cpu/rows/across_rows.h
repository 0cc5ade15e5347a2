// Columns: lanes are rows, kStep of them at a time, each class one step of vector work.
//
// A tile of steps is gathered into [step, class, lane] from any strides: of a class dimension that is not
// last, or of rows of few classes. Its outputs are computed the same way and scattered back. Both pass
// through scratch even where memory has lanes side by side: there the classes are often a power of two apart,
// and would push each other out of the cache.
#pragma once

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kTileElements = 8192;  // a tile and its terms stay in the second-level cache

template <class F, class A>
class ColumnLoop {
  using Reference = typename F::Reference;
  using Rows = LaneRows<A>;
  using Class = typename Rows::Class;
  static constexpr bool kLoss = F::kOwn == Own::target || F::kSide;  // others have an output alone

  struct Tile : TileRows {
    A *x, *y, *out, *out2;  // [step, class, lane]; the terms lie where out will
  };

  // Memory to ask for ahead of its use: a line of each for every class.
  struct Ahead {
    const char *x, *y, *out;
    int64_t x_step = 0, y_step = 0, out_step = 0;
  };

 public:
  ColumnLoop(const F& formula, const RowwiseArguments& arguments)
      : f(formula), a(arguments), one_outer(a.inner >= kStep || a.inner == a.rows), memory_of(a, one_outer) {
    const int64_t fitting = kTileElements / a.classes / kStep * kStep;
    width = fitting < kStep ? kStep : fitting > kTileRows ? kTileRows : fitting;
    tiles_per_outer = divide_up(one_outer ? a.inner : a.rows, width);
    tiles = one_outer ? a.rows / a.inner * tiles_per_outer : tiles_per_outer;
  }

  void run() const {
    double* losses = static_cast<double*>(thread_scratch(Scratch::call, tiles * sizeof(double)));
    const int64_t grain = divide_up(4 * kTileElements, width * a.classes);
    run_parallel(tiles, grain, [&](int64_t begin, int64_t end) {
      const int64_t size = width * a.classes, spare = 8 * kStep;
      A* memory = static_cast<A*>(thread_scratch(Scratch::task, (4 * size + spare) * sizeof(A)));
      Rows r;
      r.choose_constants(a);
      for (int64_t tile = begin; tile < end; ++tile) losses[tile] = run_tile(tile, memory, size, r);
    });
    if (a.loss_sum) *a.loss_sum = sum_in_order(losses, tiles);
  }

 private:
  const F f;
  const RowwiseArguments& a;
  const bool one_outer;  // a tile is rows of one outer index
  const TileMemory<A> memory_of;
  int64_t width, tiles_per_outer, tiles;

  int64_t first_row(int64_t index) const {
    return one_outer ? index / tiles_per_outer * a.inner + index % tiles_per_outer * width : index * width;
  }

  double run_tile(int64_t index, A* memory, int64_t size, Rows& r) const {
    const int64_t row = first_row(index), next_row = index + 1 < tiles ? first_row(index + 1) : row;
    const int64_t left = one_outer ? a.inner - row % a.inner : a.rows - row;
    const Tile t{
        {row, left < width ? left : width}, memory, memory + size, memory + 2 * size, memory + 3 * size};
    memory_of.gather(a.x, t, t.x, t.out);
    if (F::kTwoInputs) memory_of.gather(a.y, t, t.y, t.out);
    r.choose(a, t);
    for (int64_t first = 0; first < t.rows; first += kStep) look_at(t, first, r);
    for (int64_t first = 0; first < t.rows; first += kStep) {
      const char* somewhere = static_cast<const char*>(a.x.data);
      Ahead ahead{somewhere, somewhere, somewhere};
      look_ahead(a.x, a.type, next_row + first, ahead.x, ahead.x_step);
      if (F::kTwoInputs) look_ahead(a.y, a.type, next_row + first, ahead.y, ahead.y_step);
      if (a.out.data && !memory_of.past_caches(a.out)) {
        look_ahead(a.out, a.out_type, row + first, ahead.out, ahead.out_step);
      }
      for (int64_t line = 0; line < kStep * a.target_bytes; line += 64) {
        __builtin_prefetch(static_cast<const char*>(a.target) + (next_row + first) * a.target_bytes + line);
      }
      sum_terms(t, first, ahead, r);
    }
    take_own(t, r);
    const double loss = finish(t, r);
    for (int64_t first = 0; first < t.rows; first += kStep) {
      if constexpr (F::kSecond) {
        if (a.out2.data) map_second(t, first, r);
      }
      if (a.out.data) map(t, first, r);
    }
    // Not before both are computed: the input's tile becomes scratch.
    if (F::kSecond && a.out2.data) memory_of.put(a.out2, t, t.out2, t.x);
    if (a.out.data) memory_of.put(a.out, t, t.out, t.x);
    return loss;
  }

  void look_ahead(const Stream& s, DType type, int64_t row, const char*& at, int64_t& step) const {
    const auto walk = memory_of.walk_of(s);
    if (walk == TileMemory<A>::Walk::any) return;
    at = element(s, type, a.inner, row);
    step = static_cast<int64_t>(bytes_of(type)) * (walk == TileMemory<A>::Walk::lanes ? s.by_class : kStep);
  }

  int64_t padded(const Tile& t) const { return divide_up(t.rows, kStep) * kStep; }

  // --- a step: kStep rows, the classes' loop outside ---

  void look_at(const Tile& t, int64_t first, Rows& r) const {
    const A* x = t.x + first * a.classes;
    if (F::kPeak && a.predicted) {
      find_peaks<true, true>(x, first, r);
    } else if (F::kOwn == Own::peak) {
      find_peaks<true, false>(x, first, r);
    } else {
      find_peaks<false, false>(x, first, r);
    }
    if constexpr (F::kSide) sum_side(x, t.y + first * a.classes, first, r);
  }

  // torch's argmax is the first NaN if there is one.
  template <bool kWhere, bool kFirstNaN>
  void find_peaks(const A* x, int64_t first, Rows& r) const {
    const F formula = f;
    A peak[kStep];
    Class where[kStep];
    for (int l = 0; l < kStep; ++l) peak[l] = F::kPeak ? -Constants<A>::infinity : A(0), where[l] = 0;
    for (int64_t c = 0; F::kPeak && c < a.classes; ++c) {
      const Class here = static_cast<Class>(c);
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) {
        A key = formula.key(x[c * kStep + l]);
        bool larger = key > peak[l];
        if (kFirstNaN) {  // +inf from then on: the row is NaN all the same
          larger |= (key != key) & (peak[l] < Constants<A>::infinity);
          key = key != key ? Constants<A>::infinity : key;
        }
        if (kWhere) where[l] = blend(larger, here, where[l]);
        peak[l] = maximum(peak[l], key);
      }
    }
    for (int l = 0; l < kStep; ++l) r.peak[first + l] = formula.logit(peak[l]);
    for (int l = 0; kWhere && l < kStep; ++l) r.peak_class[first + l] = where[l];
    for (int l = 0; F::kOwn == Own::peak && l < kStep; ++l) r.own[first + l] = where[l];
  }

  void sum_side(const A* x, const A* y, int64_t first, Rows& r) const {
    const F formula = f;
    double side[kStep], weights[kStep];
    A own[kStep], peak[kStep];
    Class own_class[kStep];
    for (int l = 0; l < kStep; ++l) {
      side[l] = weights[l] = 0;
      own[l] = A(0);
      peak[l] = r.peak[first + l];
      own_class[l] = r.own[first + l];
    }
    for (int64_t c = 0; c < a.classes; ++c) {
      const A weight = static_cast<const A*>(a.class_weight)[c];
      const Class here = static_cast<Class>(c);
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) {
        const A u = formula.weigh(weight, F::kTwoInputs ? y[c * kStep + l] : A(0));
        const A below = peak[l] - formula.logit(formula.key(x[c * kStep + l]));
        const bool left_out = own_class[l] == here;
        side[l] += static_cast<double>(select(u == A(0), A(0), u * below));
        weights[l] += static_cast<double>(F::kOwn == Own::peak && left_out ? A(0) : u);
        own[l] = left_out ? u : own[l];
      }
    }
    for (int l = 0; l < kStep; ++l) {
      r.side[first + l] = side[l];
      r.side_weight[first + l] = weights[l];
      r.own_side_weight[first + l] = own[l];
    }
  }

  // The terms, that of the own class 0, and their sum.
  void sum_terms(const Tile& t, int64_t first, const Ahead& ahead, Rows& r) const {
    const F formula = f;
    const A *x = t.x + first * a.classes, *y = t.y + first * a.classes;
    A* terms = t.out + first * a.classes;
    typename Reference::template Lanes<kStep> reference;
    Class own[kStep];
    A own_input[kStep];
    FUSED_ML_LANES
    for (int l = 0; l < kStep; ++l) {
      reference.set(l, Reference::make(r.peak[first + l]));
      own[l] = r.own[first + l];
      own_input[l] = A(0);
    }
    TermSums<A> sums;
    StageOf<F, A> stage;
    constexpr int64_t kClasses = kStage / kStep;
    for (int64_t begin = 0; begin < a.classes; begin += kClasses) {
      const int64_t here = a.classes - begin < kClasses ? a.classes - begin : kClasses;
      for (int64_t c = 0; c < here; ++c) {
        __builtin_prefetch(ahead.x + (begin + c) * ahead.x_step);
        if (F::kTwoInputs) __builtin_prefetch(ahead.y + (begin + c) * ahead.y_step);
        __builtin_prefetch(ahead.out + (begin + c) * ahead.out_step, 1);
        const Class at = static_cast<Class>(begin + c);
        const A *step_x = x + (begin + c) * kStep, *step_y = y + (begin + c) * kStep;
        FUSED_ML_LANES
        for (int l = 0; l < kStep; ++l) {
          const bool counts = F::kOwn == Own::none || own[l] != at;
          stage.set(c * kStep + l,
                    formula.term(reference.get(l), step_x[l], F::kTwoInputs ? step_y[l] : A(0), counts));
        }
        FUSED_ML_LANES
        for (int l = 0; F::kOwn != Own::none && l < kStep; ++l) {
          own_input[l] = blend(own[l] == at, step_x[l], own_input[l]);
        }
      }
      sums.template add<F::kKeepTerms>(stage, 0, here * kStep, terms + begin * kStep, a.exact_sums);
    }
    for (int l = 0; l < kStep; ++l) r.others[first + l] = sums.sum[l];
    for (int l = 0; l < kStep; ++l) r.rest[first + l] = sums.rest[l];
    for (int l = 0; l < kStep; ++l) r.own_input[first + l] = own_input[l];
  }

  // --- a tile's rows ---

  void take_own(const Tile& t, Rows& r) const {
    const F formula = f;
    const int64_t lanes = padded(t);
    if constexpr (F::kOwn != Own::none) {
#pragma GCC ivdep
      for (int64_t l = 0; l < lanes; ++l) {
        const bool there = r.own[l] != Rows::kNoClass;
        const Parts<A> term = parts(formula.term(Reference::make(r.peak[l]), r.own_input[l], A(0), there));
        r.own_term[l] = there ? term.value : A(0);
        r.own_rest[l] = there ? term.rest : A(0);
      }
    }
  }

  double finish(const Tile& t, Rows& r) const {
    const F formula = f;
    const int64_t rows = t.rows, lanes = padded(t);
#pragma GCC ivdep
    for (int64_t l = 0; l < lanes; ++l) {
      RowSums<double> sums;  // float64: the last rounding is the only one
      sums.peak = r.peak[l];
      sums.others = r.others[l] + static_cast<double>(r.rest[l]);
      sums.own = F::kOwn == Own::none
                     ? 0.0
                     : static_cast<double>(r.own_term[l]) + static_cast<double>(r.own_rest[l]);
      sums.own_logit = F::kOwn == Own::none || r.own[l] == Rows::kNoClass ? -Constants<A>::infinity
                                                                          : f.logit(f.key(r.own_input[l]));
      sums.own_weight = r.own_weight[l];
      sums.side = F::kSide ? r.side[l] : 0.0;
      sums.side_weight = F::kSide ? r.side_weight[l] : 0.0;
      sums.own_side_weight = F::kSide ? r.own_side_weight[l] : A(0);
      sums.gradient_scale = r.gradient_scale[l];
      const RowResult<double> result = formula.finish(sums);
      if constexpr (kLoss) {
        r.loss[l] = select(r.keep[l] == A(0), 0.0, result.loss * static_cast<double>(r.loss_scale[l]));
        r.lse[l] = static_cast<A>(result.lse);
      }
      r.scale[l] = static_cast<A>(result.scale);
      r.offset[l] = static_cast<A>(result.offset);
      r.log_total[l] = static_cast<A>(result.log_total);
      if constexpr (F::kOwn != Own::none) r.own_out[l] = static_cast<A>(result.own);
    }
    if constexpr (!kLoss) return 0.0;
    if (a.loss) {
      for (int64_t l = 0; l < rows; ++l) static_cast<A*>(a.loss)[t.row + l] = static_cast<A>(r.loss[l]);
    }
    if (a.lse) memcpy(static_cast<A*>(a.lse) + t.row, r.lse, rows * sizeof(A));
    for (int64_t l = 0; a.predicted && l < rows; ++l) {
      a.predicted[t.row + l] = static_cast<int64_t>(r.peak_class[l]);
    }
    return a.loss_sum ? sum_of(rows, [&](int64_t l) { return r.loss[l]; }) : 0.0;
  }

  // `out` holds the terms.
  void map(const Tile& t, int64_t first, const Rows& r) const {
    const F formula = f;
    const A *x = t.x + first * a.classes, *y = t.y + first * a.classes;
    A* out = t.out + first * a.classes;
    A own[kStep];
    for (int l = 0; l < kStep; ++l) own[l] = A(0);
    if constexpr (F::kOwn != Own::none) {
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) own[l] = formula.map_own(r.own_input[first + l], r.own_out[first + l]);
    }
    for (int64_t c = 0; c < a.classes; ++c) {
      const A weight = F::kSide ? static_cast<const A*>(a.class_weight)[c] : A(0);
      const Class here = static_cast<Class>(c);
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) {
        const A value = formula.map(x[c * kStep + l], F::kTwoInputs ? y[c * kStep + l] : A(0), weight,
                                    F::kKeepTerms ? out[c * kStep + l] : A(0), coefficients(r, first + l));
        out[c * kStep + l] = F::kOwn == Own::none ? value : blend(r.own[first + l] == here, own[l], value);
      }
    }
    zero_ignored(out, first, r);
  }

  void map_second(const Tile& t, int64_t first, const Rows& r) const {
    const F formula = f;
    const A *x = t.x + first * a.classes, *y = t.y + first * a.classes;
    A* out = t.out2 + first * a.classes;
    for (int64_t c = 0; c < a.classes; ++c) {
      const A weight = static_cast<const A*>(a.class_weight)[c];
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) {
        out[c * kStep + l] =
            formula.map_second(x[c * kStep + l], y[c * kStep + l], weight, coefficients(r, first + l));
      }
    }
    zero_ignored(out, first, r);
  }

  FUSED_ML_INLINE static RowCoefficients<A> coefficients(const Rows& r, int64_t l) {
    return {r.peak[l], r.scale[l], r.offset[l], r.log_total[l]};
  }

  // An ignored row's output is 0, whatever its logits hold.
  void zero_ignored(A* out, int64_t first, const Rows& r) const {
    if (r.all_kept) return;
    for (int64_t c = 0; c < a.classes; ++c) {
      for (int l = 0; l < kStep; ++l) {
        out[c * kStep + l] = r.keep[first + l] == A(0) ? A(0) : out[c * kStep + l];
      }
    }
  }
};

}  // namespace FUSED_ML_NAMESPACE
