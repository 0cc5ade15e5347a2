// Columns: lanes are rows, kStep of them at a time, each class one step of vector work.
//
// A tile of steps is gathered into [step, class, lane] from any strides: of a class dimension that is not
// last, or of rows of few classes. Its outputs are computed the same way and scattered back. Both pass
// through scratch even where memory has lanes side by side: there the classes are often a power of two apart,
// and would push each other out of the cache.
#pragma once

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kTileRows = 256;       // at most
constexpr int64_t kTileElements = 8192;  // a tile and its terms stay in the second-level cache

template <class F, class A>
class ColumnLoop {
  using Reference = typename F::Reference;
  using Class = typename Constants<A>::Bits;  // as wide as A, so that comparing classes selects lanes of A
  static constexpr Class kNoClass = ~Class{0};

  struct Tile {
    int64_t row, rows;
    A *x, *y, *out, *out2;  // [step, class, lane]; the terms lie where out will
  };

  // The rows of a tile, an array a field.
  struct Rows {
    bool all_kept;
    Class own[kTileRows], peak_class[kTileRows];
    A keep[kTileRows];  // 1, or 0: ignored
    A own_weight[kTileRows], loss_scale[kTileRows], gradient_scale[kTileRows];
    A peak[kTileRows], own_input[kTileRows], own_term[kTileRows], own_rest[kTileRows];
    double others[kTileRows];  // and what float terms lose of them:
    A rest[kTileRows];
    A side[kTileRows], side_weight[kTileRows], own_side_weight[kTileRows];
    A scale[kTileRows], offset[kTileRows], log_total[kTileRows], own_out[kTileRows], lse[kTileRows];
    double loss[kTileRows];
  };

  // Memory to ask for ahead of its use: a line of each for every class.
  struct Ahead {
    const char *read, *write;
    int64_t read_step, write_step;
  };

 public:
  ColumnLoop(const F& formula, const RowwiseArguments& arguments)
      : f(formula), a(arguments), along_inner(all_unit(a, &Stream::by_inner) && a.inner >= kStep) {
    const int64_t fitting = kTileElements / a.classes / kStep * kStep;
    width = fitting < kStep ? kStep : fitting > kTileRows ? kTileRows : fitting;
    tiles_per_outer = divide_up(along_inner ? a.inner : a.rows, width);
    tiles = along_inner ? a.rows / a.inner * tiles_per_outer : tiles_per_outer;
  }

  void run() const {
    double* losses = static_cast<double*>(thread_scratch(Scratch::call, tiles * sizeof(double)));
    const int64_t grain = divide_up(4 * kTileElements, width * a.classes);
    run_parallel(tiles, grain, [&](int64_t begin, int64_t end) {
      const int64_t size = width * a.classes, spare = 8 * kStep;
      A* memory = static_cast<A*>(thread_scratch(Scratch::task, (4 * size + spare) * sizeof(A)));
      Rows r;
      choose_constants(r);
      for (int64_t tile = begin; tile < end; ++tile) losses[tile] = run_tile(tile, memory, size, r);
    });
    if (a.loss_sum) *a.loss_sum = sum_in_order(losses, tiles);
  }

 private:
  const F f;
  const RowwiseArguments& a;
  const bool along_inner;  // a tile is rows of one outer index, next to each other in memory
  int64_t width, tiles_per_outer, tiles;

  int64_t first_row(int64_t index) const {
    return along_inner ? index / tiles_per_outer * a.inner + index % tiles_per_outer * width : index * width;
  }

  double run_tile(int64_t index, A* memory, int64_t size, Rows& r) const {
    const int64_t row = first_row(index), next_row = index + 1 < tiles ? first_row(index + 1) : row;
    const int64_t left = along_inner ? a.inner - row % a.inner : a.rows - row;
    const Tile t{row,           left < width ? left : width, memory,
                 memory + size, memory + 2 * size,           memory + 3 * size};
    gather(a.x, t, t.x);
    if (F::kTwoInputs) gather(a.y, t, t.y);
    choose(t, r);
    for (int64_t first = 0; first < t.rows; first += kStep) {
      Ahead ahead{static_cast<const char*>(a.x.data), static_cast<const char*>(a.x.data), 0, 0};
      look_ahead(a.x, a.type, next_row + first, ahead.read, ahead.read_step);
      if (a.out.data) look_ahead(a.out, a.out_type, row + first, ahead.write, ahead.write_step);
      for (int64_t line = 0; line < kStep * a.target_bytes; line += 64) {
        __builtin_prefetch(static_cast<const char*>(a.target) + (next_row + first) * a.target_bytes + line);
      }
      reduce(t, first, ahead, r);
    }
    take_own(t, r);
    const double loss = finish(t, r);
    if constexpr (F::kSecond) {
      if (a.out2.data) {
        for (int64_t first = 0; first < t.rows; first += kStep) map_second(t, first, r);
        put(a.out2, t, t.out2);
      }
    }
    if (a.out.data) {
      for (int64_t first = 0; first < t.rows; first += kStep) map(t, first, r);
      put(a.out, t, t.out);
    }
    return loss;
  }

  void look_ahead(const Stream& s, DType type, int64_t row, const char*& at, int64_t& step) const {
    if (!along_inner && !evenly_spaced(s)) return;
    at = element(s, type, a.inner, row);
    step = static_cast<int64_t>(bytes_of(type)) * (along_inner ? s.by_class : kStep);
  }

  // --- between memory and a tile ---

  bool evenly_spaced(const Stream& s) const { return s.by_class == 1 && a.inner == a.rows; }
  bool contiguous(const Stream& s) const { return evenly_spaced(s) && s.by_inner == a.classes; }

  // Of an input.
  void gather(const Stream& s, const Tile& t, A* tile) const {
    const int64_t classes = a.classes;
    with_type<A>(a.type, s.data, [&](auto* base) {
      if (along_inner) {
        const auto* p = base + offset_of(s, t.row);
        for (int64_t c = 0; c < classes; ++c) {
          each_step(t, [&](int64_t step, int64_t count) {
            load_lanes(p + c * s.by_class + step * kStep, count, tile + (step * classes + c) * kStep);
          });
        }
        return;
      }
      const int64_t done = rows_to_lanes(s, t, base, tile);
      each_row(s, t, done, [&](int64_t row, int64_t at) {
        A* lane = tile + row / kStep * kStep * classes + row % kStep;
        for (int64_t c = 0; c < classes; ++c) lane[c * kStep] = load(base + at + c * s.by_class);
      });
      if (t.rows % kStep == 0) return;
      A* last = tile + t.rows / kStep * kStep * classes;
      for (int64_t c = 0; c < classes; ++c) {
        for (int64_t l = t.rows % kStep; l < kStep; ++l) last[c * kStep + l] = A(0);
      }
    });
  }

  // Of an output.
  void put(const Stream& s, const Tile& t, A* tile) const {
    const int64_t classes = a.classes;
    with_type<A>(a.out_type, s.data, [&](auto* base) {
      if (along_inner) {
        auto* p = base + offset_of(s, t.row);
        for (int64_t c = 0; c < classes; ++c) {
          each_step(t, [&](int64_t step, int64_t count) {
            store_lanes(tile + (step * classes + c) * kStep, count, p + c * s.by_class + step * kStep);
          });
        }
        return;
      }
      const int64_t done = lanes_to_rows(s, t, tile, base);
      each_row(s, t, done, [&](int64_t row, int64_t at) {
        const A* lane = tile + row / kStep * kStep * classes + row % kStep;
        for (int64_t c = 0; c < classes; ++c) store(base + at + c * s.by_class, lane[c * kStep]);
      });
    });
  }

  int64_t offset_of(const Stream& s, int64_t row) const {
    return row / a.inner * s.by_outer + row % a.inner * s.by_inner;
  }

  template <class Body>
  FUSED_ML_INLINE void each_step(const Tile& t, const Body& body) const {
    int64_t step = 0;
    for (; (step + 1) * kStep <= t.rows; ++step) body(step, kStep);
    if (step * kStep < t.rows) body(step, t.rows - step * kStep);
  }

  template <class T>
  FUSED_ML_INLINE static void load_lanes(const T* __restrict from, int64_t count, A* __restrict to) {
    if (count == kStep) {
      load_run(from, kStep, to);
    } else {
      for (int64_t l = 0; l < kStep; ++l) to[l] = l < count ? load(from + l) : A(0);
    }
  }
  template <class T>
  FUSED_ML_INLINE static void store_lanes(const A* __restrict from, int64_t count, T* __restrict to) {
    if (count == kStep) {
      store_run(from, kStep, to);
    } else {
      for (int64_t l = 0; l < count; ++l) store(to + l, from[l]);
    }
  }

  // Calls body(row of the tile, its offset in the stream) from row `first` on.
  template <class Body>
  FUSED_ML_INLINE void each_row(const Stream& s, const Tile& t, int64_t first, const Body& body) const {
    int64_t outer = (t.row + first) / a.inner, inner = (t.row + first) % a.inner;
    for (int64_t row = first; row < t.rows; ++row) {
      body(row, outer * s.by_outer + inner * s.by_inner);
      if (++inner == a.inner) {
        inner = 0;
        ++outer;
      }
    }
  }

  // As many of the first rows as turn whole, by way of floats. Returns how many.
  int64_t rows_to_lanes(const Stream& s, const Tile& t, const float* base, float* tile) const {
    if (!evenly_spaced(s)) return 0;
    return rows_to_tile(base + t.row * s.by_inner, s.by_inner, t.rows, a.classes, tile);
  }
  template <class T>
  int64_t rows_to_lanes(const Stream& s, const Tile& t, const T* base, float* tile) const {
    if (!contiguous(s)) return 0;
    load_strided(base + t.row * a.classes, 1, t.rows * a.classes, t.out);
    return rows_to_tile(t.out, a.classes, t.rows, a.classes, tile);
  }
  int64_t rows_to_lanes(const Stream&, const Tile&, const double*, double*) const { return 0; }

  int64_t lanes_to_rows(const Stream& s, const Tile& t, const float* tile, float* base) const {
    if (!evenly_spaced(s)) return 0;
    return tile_to_rows(tile, t.rows, a.classes, base + t.row * s.by_inner, s.by_inner);
  }
  template <class T>
  int64_t lanes_to_rows(const Stream& s, const Tile& t, const float* tile, T* base) const {
    if (!contiguous(s)) return 0;
    const int64_t done = tile_to_rows(tile, t.rows, a.classes, t.x, a.classes);
    store_strided(t.x, done * a.classes, base + t.row * a.classes, 1);
    return done;
  }
  int64_t lanes_to_rows(const Stream&, const Tile&, const double*, double*) const { return 0; }

  // --- a tile's rows ---

  int64_t padded(const Tile& t) const { return divide_up(t.rows, kStep) * kStep; }

  // What chosen_at gives a row, a field at a time: what is the same for all rows once, before the first tile;
  void choose_constants(Rows& r) const {
    r.all_kept = true;
    for (int64_t l = 0; l < kTileRows; ++l) {
      r.own[l] = kNoClass;
      r.keep[l] = r.own_weight[l] = r.loss_scale[l] = A(1);
      r.gradient_scale[l] = static_cast<A>(a.gradient_scale);
    }
  }
  // the others for a tile. The lanes behind its last row keep what they held.
  void choose(const Tile& t, Rows& r) const {
    if (a.target) {
      if (a.target_bytes == 8) read_targets(static_cast<const int64_t*>(a.target), t, r);
      if (a.target_bytes == 4) read_targets(static_cast<const int32_t*>(a.target), t, r);
      if (a.target_bytes == 1) read_targets(static_cast<const uint8_t*>(a.target), t, r);
    }
    const A* by_class = static_cast<const A*>(a.class_weight);
    const A* by_row = static_cast<const A*>(a.row_weight);
    const A* gradient = static_cast<const A*>(a.row_gradient);
    if (a.target && by_class) {
      for (int64_t l = 0; l < t.rows; ++l) r.own_weight[l] = r.own[l] == kNoClass ? A(1) : by_class[r.own[l]];
    }
    if (by_row) memcpy(r.loss_scale, by_row + t.row, t.rows * sizeof(A));
    if (by_row || gradient) {
      const A scale = static_cast<A>(a.gradient_scale);
      for (int64_t l = 0; l < t.rows; ++l) {
        r.gradient_scale[l] = scale * (gradient ? gradient[t.row + l] : A(1)) * r.loss_scale[l];
      }
    }
  }

  template <class Index>
  void read_targets(const Index* targets, const Tile& t, Rows& r) const {
    const uint64_t classes = static_cast<uint64_t>(a.classes);
    const int64_t ignore = a.ignore_index;
    int bad = 0, ignored = 0;
    for (int64_t l = 0; l < t.rows; ++l) {
      const int64_t own = static_cast<int64_t>(targets[t.row + l]);
      const bool counts = own != ignore, inside = static_cast<uint64_t>(own) < classes;
      r.own[l] = counts & inside ? static_cast<Class>(own) : kNoClass;
      r.keep[l] = counts & inside ? A(1) : A(0);
      bad |= static_cast<int>(counts & !inside);
      ignored |= static_cast<int>(!counts);
    }
    r.all_kept = !bad && !ignored;
    for (int64_t l = 0; bad && l < t.rows; ++l) chosen_at<A>(a, t.row + l);  // notes which one
  }

  // --- a step: kStep rows, the classes' loop outside ---

  void reduce(const Tile& t, int64_t first, const Ahead& ahead, Rows& r) const {
    const A* x = t.x + first * a.classes;
    const A* y = t.y + first * a.classes;
    if (F::kPeak && a.predicted) {
      find_peaks<true, true>(x, first, r);
    } else if (F::kOwn == Own::peak) {
      find_peaks<true, false>(x, first, r);
    } else {
      find_peaks<false, false>(x, first, r);
    }
    if constexpr (F::kSide) sum_side(x, y, first, r);
    sum_terms(x, y, t.out + first * a.classes, first, ahead, r);
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
        if (kWhere) where[l] = larger ? here : where[l];
        peak[l] = maximum(peak[l], key);
      }
    }
    for (int l = 0; l < kStep; ++l) r.peak[first + l] = formula.logit(peak[l]);
    for (int l = 0; kWhere && l < kStep; ++l) r.peak_class[first + l] = where[l];
    for (int l = 0; F::kOwn == Own::peak && l < kStep; ++l) r.own[first + l] = where[l];
  }

  void sum_side(const A* x, const A* y, int64_t first, Rows& r) const {
    const F formula = f;
    A side[kStep], weights[kStep], own[kStep], peak[kStep];
    Class own_class[kStep];
    for (int l = 0; l < kStep; ++l) {
      side[l] = weights[l] = own[l] = A(0);
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
        side[l] += select(u == A(0), A(0), u * below);
        weights[l] += F::kOwn == Own::peak && left_out ? A(0) : u;
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
  void sum_terms(const A* x, const A* y, A* __restrict terms, int64_t first, const Ahead& ahead,
                 Rows& r) const {
    const F formula = f;
    typename Reference::template Lanes<kStep> reference;
    double others[kStep];
    A rest[kStep];
    Class own[kStep];
    for (int l = 0; l < kStep; ++l) {
      reference.set(l, Reference::make(r.peak[first + l]));
      others[l] = 0;
      rest[l] = A(0);
      own[l] = r.own[first + l];
    }
    for (int64_t c = 0; c < a.classes; ++c) {
      __builtin_prefetch(ahead.read + c * ahead.read_step);
      __builtin_prefetch(ahead.write + c * ahead.write_step, 1);
      const Class here = static_cast<Class>(c);
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) {
        const bool counts = F::kOwn == Own::none || own[l] != here;
        const Parts<A> term =
            formula.term(reference.get(l), x[c * kStep + l], F::kTwoInputs ? y[c * kStep + l] : A(0), counts);
        terms[c * kStep + l] = term.value;
        accumulate(others[l], rest[l], term);
      }
    }
    for (int l = 0; l < kStep; ++l) {
      r.others[first + l] = others[l];
      r.rest[first + l] = rest[l];
    }
  }

  // --- a tile's rows again ---

  void take_own(const Tile& t, Rows& r) const {
    const F formula = f;
    const int64_t lanes = padded(t), classes = a.classes;
    if constexpr (F::kOwn != Own::none) {
      for (int64_t l = 0; l < lanes; ++l) {
        const int64_t c = r.own[l] == kNoClass ? 0 : static_cast<int64_t>(r.own[l]);
        r.own_input[l] = t.x[(l / kStep * classes + c) * kStep + l % kStep];
      }
#pragma GCC ivdep
      for (int64_t l = 0; l < lanes; ++l) {
        const bool there = r.own[l] != kNoClass;
        const Parts<A> term = formula.term(Reference::make(r.peak[l]), r.own_input[l], A(0), there);
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
      sums.own_logit = F::kOwn == Own::none || r.own[l] == kNoClass ? -Constants<A>::infinity
                                                                    : f.logit(f.key(r.own_input[l]));
      sums.own_weight = r.own_weight[l];
      sums.side = F::kSide ? r.side[l] : A(0);
      sums.side_weight = F::kSide ? r.side_weight[l] : A(0);
      sums.own_side_weight = F::kSide ? r.own_side_weight[l] : A(0);
      sums.gradient_scale = r.gradient_scale[l];
      const RowResult<double> result = formula.finish(sums);
      r.loss[l] = select(r.keep[l] == A(0), 0.0, result.loss * static_cast<double>(r.loss_scale[l]));
      r.lse[l] = static_cast<A>(result.lse);
      r.scale[l] = static_cast<A>(result.scale);
      r.offset[l] = static_cast<A>(result.offset);
      r.log_total[l] = static_cast<A>(result.log_total);
      r.own_out[l] = static_cast<A>(result.own);
    }
    if (a.loss) {
      for (int64_t l = 0; l < rows; ++l) static_cast<A*>(a.loss)[t.row + l] = static_cast<A>(r.loss[l]);
    }
    if (a.lse) memcpy(static_cast<A*>(a.lse) + t.row, r.lse, rows * sizeof(A));
    for (int64_t l = 0; a.predicted && l < rows; ++l) {
      a.predicted[t.row + l] = static_cast<int64_t>(r.peak_class[l]);
    }
    return a.loss_sum ? sum_of<A>(rows, [&](int64_t l) { return r.loss[l]; }) : 0.0;
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
        out[c * kStep + l] = F::kOwn != Own::none && r.own[first + l] == here ? own[l] : value;
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
