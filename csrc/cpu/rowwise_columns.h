// Columns: lanes are rows. A tile of up to kLanes rows is reduced class by class, every lane keeping its own
// state.
//
// A tile is gathered into [classes, lanes] from any strides: of a class dimension that is not last, or of
// rows of few classes. The outputs are written where they lie if their rows are next to each other, else
// scattered back.
#pragma once

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kLanes = 256;
constexpr int64_t kLaneStep = 16;        // tiles are whole vectors wide
constexpr int64_t kTileElements = 8192;  // a tile and its terms stay in the second-level cache

template <class F, class A>
class ColumnLoop {
  using Reference = typename F::Reference;

  // The state of a tile's rows, an array a field.
  struct State {
    A peak[kLanes], others[kLanes], rest[kLanes], own[kLanes], own_rest[kLanes], own_input[kLanes],
        own_logit[kLanes], own_weight[kLanes], side[kLanes], side_weight[kLanes], own_side_weight[kLanes],
        gradient_scale[kLanes], loss_scale[kLanes];
    typename Reference::template Lanes<kLanes> reference;
    A loss[kLanes], lse[kLanes], scale[kLanes], offset[kLanes], log_total[kLanes], own_out[kLanes];
    int32_t own_class[kLanes], peak_class[kLanes];
    bool keep[kLanes];
  };

  // A tile's operands, [classes, lanes], each with its step from class to class.
  struct Tile {
    const A *x, *y;
    A *terms, *out, *out2;
    int64_t step;                 // from class to class: of x, y and terms,
    int64_t out_step, out2_step;  // and of the outputs
    int64_t row, rows;
    int64_t lanes, out_lanes;  // rows and padding
  };

 public:
  ColumnLoop(const F& formula, const RowwiseArguments& arguments)
      : f(formula), a(arguments), along_inner(all_unit(a, &Stream::by_inner) && a.inner >= kLaneStep) {
    const int64_t fitting = kTileElements / a.classes / kLaneStep * kLaneStep;
    width = fitting < kLaneStep ? kLaneStep : fitting > kLanes ? kLanes : fitting;
    tiles_per_outer = along_inner ? divide_up(a.inner, width) : divide_up(a.rows, width);
    tiles = along_inner ? a.rows / a.inner * tiles_per_outer : tiles_per_outer;
  }

  void run() const {
    double* losses = static_cast<double*>(thread_scratch(Scratch::call, tiles * sizeof(double)));
    const int64_t grain = divide_up(4 * kTileElements, width * a.classes);
    run_parallel(tiles, grain, [&](int64_t begin, int64_t end) {
      A* memory =
          static_cast<A*>(thread_scratch(Scratch::task, (5 * width * a.classes + 8 * width) * sizeof(A)));
      State state;
      for (int64_t tile = begin; tile < end; ++tile) {
        losses[tile] = run_tile(tile, state, memory);
      }
    });
    if (a.loss_sum) *a.loss_sum = sum_in_order(losses, tiles);
  }

 private:
  const F f;
  const RowwiseArguments& a;
  const bool along_inner;  // a tile is rows of one outer index, next to each other in memory
  int64_t width, tiles_per_outer, tiles;

  double run_tile(int64_t index, State& s, A* memory) const {
    Tile t{};
    t.row = along_inner ? index / tiles_per_outer * a.inner + index % tiles_per_outer * width : index * width;
    const int64_t left = along_inner ? a.inner - index % tiles_per_outer * width : a.rows - t.row;
    t.rows = left < width ? left : width;
    t.lanes = divide_up(t.rows, kLaneStep) * kLaneStep;
    const bool out_in_memory = along_inner && a.out_type == arithmetic_dtype<A>;
    t.out_lanes = out_in_memory ? t.rows : t.lanes;
    const int64_t size = width * a.classes;
    t.step = width;
    t.x = gather(a.x, t, memory);
    if (F::kTwoInputs) t.y = gather(a.y, t, memory + size);
    t.terms = memory + 2 * size;
    place(a.out, out_in_memory, t, memory + 3 * size, t.out, t.out_step);
    place(a.out2, out_in_memory, t, memory + 4 * size, t.out2, t.out2_step);
    const double loss = reduce_and_map(t, s);
    put(a.out, t, out_in_memory, s, t.out, t.out_step);
    put(a.out2, t, out_in_memory, s, t.out2, t.out2_step);
    return loss;
  }

  // An input tile, in scratch even where it lies in memory as [classes, lanes]: there the classes are often a
  // power of two apart, and the rows of a tile would push each other out of the cache.
  const A* gather(const Stream& s, const Tile& t, A* buffer) const {
    const int64_t classes = a.classes, pitch = width;
    if (along_inner) {
      with_type<A>(a.type, element(s, a.type, a.inner, t.row), [&](auto* p) {
        for (int64_t c = 0; c < classes; ++c) load_strided(p + c * s.by_class, 1, t.rows, buffer + c * pitch);
      });
    } else {
      with_type<A>(a.type, s.data, [&](auto* base) {
        int64_t done = 0;
        if constexpr (sizeof(*base) == 4) {
          if (evenly_spaced(s)) {
            done = rows_to_tile(base + t.row * s.by_inner, s.by_inner, t.rows, classes, buffer, pitch);
          }
        }
        each_row(s, t, done, [&](int64_t l, int64_t at) {
          for (int64_t c = 0; c < classes; ++c) buffer[c * pitch + l] = load(base + at + c * s.by_class);
        });
      });
    }
    for (int64_t c = 0; c < classes; ++c) {
      for (int64_t l = t.rows; l < t.lanes; ++l) buffer[c * pitch + l] = A(0);
    }
    return buffer;
  }

  // Where an output tile is computed.
  void place(const Stream& s, bool in_memory, const Tile& t, A* buffer, A*& tile, int64_t& step) const {
    if (!s.data) return;
    tile =
        in_memory ? reinterpret_cast<A*>(const_cast<char*>(element(s, a.out_type, a.inner, t.row))) : buffer;
    step = in_memory ? s.by_class : width;
  }

  // An output tile to memory, if it is not there; an ignored row's output is 0, whatever its logits hold.
  void put(const Stream& s, const Tile& t, bool in_memory, const State& state, A* tile, int64_t step) const {
    if (!tile) return;
    const int64_t classes = a.classes;
    for (int64_t l = 0; l < t.rows; ++l) {
      if (state.keep[l]) continue;
      for (int64_t c = 0; c < classes; ++c) tile[c * step + l] = A(0);
    }
    if (in_memory) return;
    if (along_inner) {
      with_type<A>(a.out_type, element(s, a.out_type, a.inner, t.row), [&](auto* p) {
        for (int64_t c = 0; c < classes; ++c) store_strided(tile + c * step, t.rows, p + c * s.by_class, 1);
      });
      return;
    }
    with_type<A>(a.out_type, s.data, [&](auto* base) {
      int64_t done = 0;
      if constexpr (sizeof(*base) == 4) {
        if (evenly_spaced(s)) {
          done = tile_to_rows(tile, step, t.rows, classes, base + t.row * s.by_inner, s.by_inner);
        }
      }
      each_row(s, t, done, [&](int64_t l, int64_t at) {
        for (int64_t c = 0; c < classes; ++c) store(base + at + c * s.by_class, tile[c * step + l]);
      });
    });
  }

  bool evenly_spaced(const Stream& s) const { return s.by_class == 1 && a.inner == a.rows; }

  // Calls body(lane, offset of the row in the stream) for a tile's rows from `first` on.
  template <class Body>
  FUSED_ML_INLINE void each_row(const Stream& s, const Tile& t, int64_t first, const Body& body) const {
    int64_t outer = (t.row + first) / a.inner, inner = (t.row + first) % a.inner;
    for (int64_t l = first; l < t.rows; ++l) {
      body(l, outer * s.by_outer + inner * s.by_inner);
      if (++inner == a.inner) {
        inner = 0;
        ++outer;
      }
    }
  }

  double reduce_and_map(const Tile& tile, State& s) const {
    choose(tile, s);
    find_peaks(tile, s);
    take_own(tile, s);
    sum_terms(tile, s);
    const double loss = finish(tile, s);
    if constexpr (F::kSecond) {
      if (tile.out2) map_second(tile, s);
    }
    if (tile.out) map(tile, s);
    return loss;
  }

  // chosen_at for a tile, a field at a time: the loops have no branches.
  void choose(const Tile& tile, State& s) const {
    for (int64_t l = 0; l < tile.lanes; ++l) {
      s.own_class[l] = -1;
      s.keep[l] = l < tile.rows;
      s.own_weight[l] = A(1);
      s.loss_scale[l] = A(1);
      s.gradient_scale[l] = static_cast<A>(a.gradient_scale);
    }
    if (a.target) {
      if (a.target_bytes == 8) read_targets(static_cast<const int64_t*>(a.target), tile, s);
      if (a.target_bytes == 4) read_targets(static_cast<const int32_t*>(a.target), tile, s);
      if (a.target_bytes == 1) read_targets(static_cast<const uint8_t*>(a.target), tile, s);
    }
    const A* by_class = static_cast<const A*>(a.class_weight);
    const A* by_row = static_cast<const A*>(a.row_weight);
    const A* gradient = static_cast<const A*>(a.row_gradient);
    for (int64_t l = 0; a.target && by_class && l < tile.rows; ++l) {
      if (s.keep[l]) s.own_weight[l] = by_class[s.own_class[l]];
    }
    for (int64_t l = 0; by_row && l < tile.rows; ++l) s.loss_scale[l] = by_row[tile.row + l];
    for (int64_t l = 0; gradient && l < tile.rows; ++l) s.gradient_scale[l] *= gradient[tile.row + l];
    for (int64_t l = 0; by_row && l < tile.rows; ++l) s.gradient_scale[l] *= s.loss_scale[l];
  }

  template <class Index>
  void read_targets(const Index* targets, const Tile& tile, State& s) const {
    const uint64_t classes = static_cast<uint64_t>(a.classes);
    const int64_t ignore = a.ignore_index;
    int bad = 0;
    for (int64_t l = 0; l < tile.rows; ++l) {
      const int64_t own = static_cast<int64_t>(targets[tile.row + l]);
      const bool counts = own != ignore;
      const bool inside = static_cast<uint64_t>(own) < classes;
      s.own_class[l] = counts & inside ? static_cast<int32_t>(own) : -1;
      s.keep[l] = counts & inside;
      bad |= static_cast<int>(counts & !inside);
    }
    if (!bad) return;
    for (int64_t l = 0; l < tile.rows; ++l) chosen_at<A>(a, tile.row + l);  // notes which one
  }

  void find_peaks(const Tile& tile, State& s) const {
    const F formula = f;
    const int64_t lanes = tile.lanes;
    A* __restrict peak = s.peak;
    for (int64_t l = 0; l < lanes; ++l) peak[l] = F::kPeak ? -Constants<A>::infinity : A(0);
    if (!F::kPeak) return;
    if (F::kOwn == Own::peak || a.predicted) {
      int32_t* __restrict where = s.peak_class;
      for (int64_t l = 0; l < lanes; ++l) where[l] = 0;
      for (int64_t c = 0; c < a.classes; ++c) {
        const A* x = tile.x + c * tile.step;
        const int32_t here = static_cast<int32_t>(c);
#pragma GCC ivdep
        for (int64_t l = 0; l < lanes; ++l) {
          const A key = formula.key(x[l]);
          // torch's argmax is the first NaN if there is one: +inf from then on, its row is NaN all the same.
          const bool larger = key > peak[l] || (key != key && peak[l] < Constants<A>::infinity);
          where[l] = larger ? here : where[l];
          peak[l] = key != key ? Constants<A>::infinity : maximum(peak[l], key);
        }
      }
    } else {
      for (int64_t c = 0; c < a.classes; ++c) {
        const A* x = tile.x + c * tile.step;
#pragma GCC ivdep
        for (int64_t l = 0; l < lanes; ++l) peak[l] = maximum(peak[l], formula.key(x[l]));
      }
    }
#pragma GCC ivdep
    for (int64_t l = 0; l < lanes; ++l) {
      peak[l] = formula.logit(peak[l]);
      s.reference.set(l, Reference::make(peak[l]));
    }
  }

  // What the own class holds, read before the terms may overwrite it.
  void take_own(const Tile& tile, State& s) const {
    const F formula = f;
    const int64_t lanes = tile.lanes;
    if constexpr (F::kOwn != Own::none) {
      if (F::kOwn == Own::peak) {
        for (int64_t l = 0; l < lanes; ++l) s.own_class[l] = s.peak_class[l];
      }
      const A* w = static_cast<const A*>(a.class_weight);
      for (int64_t l = 0; l < lanes; ++l) {
        const int64_t c = s.own_class[l] < 0 ? 0 : s.own_class[l];
        s.own_input[l] = tile.x[c * tile.step + l];
        if constexpr (F::kSide) {
          s.own_side_weight[l] = formula.weigh(w[c], F::kTwoInputs ? tile.y[c * tile.step + l] : A(0));
        }
      }
#pragma GCC ivdep
      for (int64_t l = 0; l < lanes; ++l) {
        const bool none = s.own_class[l] < 0;
        const Parts<A> term = formula.term(s.reference.get(l), s.own_input[l], A(0));
        s.own_logit[l] = none ? -Constants<A>::infinity : formula.logit(formula.key(s.own_input[l]));
        s.own[l] = none ? A(0) : term.value;
        s.own_rest[l] = none ? A(0) : term.rest;
      }
    }
  }

  void sum_terms(const Tile& tile, State& s) const {
    const F formula = f;
    const int64_t lanes = tile.lanes;
    A* __restrict others = s.others;
    A* __restrict rest = s.rest;
    A* __restrict side = s.side;
    A* __restrict side_weight = s.side_weight;
    const A* peak = s.peak;
    const auto reference = s.reference.view();
    const int32_t* own_class = s.own_class;
    for (int64_t l = 0; l < lanes; ++l) others[l] = rest[l] = side[l] = side_weight[l] = A(0);
    const A* w = static_cast<const A*>(a.class_weight);
    const bool keep_terms = F::kKeepTerms && tile.out;
    for (int64_t c = 0; c < a.classes; ++c) {
      const A* x = tile.x + c * tile.step;
      const A* y = F::kTwoInputs ? tile.y + c * tile.step : nullptr;
      const int32_t here = static_cast<int32_t>(c);
      if constexpr (F::kSide) {
        const A weight = w[c];
#pragma GCC ivdep
        for (int64_t l = 0; l < lanes; ++l) {
          const A u = formula.weigh(weight, F::kTwoInputs ? y[l] : A(0));
          side[l] += select(u == A(0), A(0), u * (peak[l] - formula.logit(formula.key(x[l]))));
          side_weight[l] += F::kOwn == Own::peak && own_class[l] == here ? A(0) : u;
        }
      }
      A* terms = keep_terms ? tile.terms + c * tile.step : tile.terms;
#pragma GCC ivdep
      for (int64_t l = 0; l < lanes; ++l) {
        const Parts<A> term = formula.term(reference.get(l), x[l], F::kTwoInputs ? y[l] : A(0));
        const bool left_out = F::kOwn != Own::none && own_class[l] == here;
        rest[l] += left_out ? A(0) : term.rest;
        add_exactly(others[l], rest[l], left_out ? A(0) : term.value);
        terms[l] = term.value;
      }
    }
  }

  double finish(const Tile& tile, State& s) const {
    const F formula = f;
    const int64_t row = tile.row, rows = tile.rows, lanes = tile.lanes;
#pragma GCC ivdep
    for (int64_t l = 0; l < lanes; ++l) {
      RowSums<double> sums;  // float64: the last rounding is the only one
      sums.peak = s.peak[l];
      sums.others = double(s.others[l]) + double(s.rest[l]);
      sums.own = F::kOwn == Own::none ? 0.0 : double(s.own[l]) + double(s.own_rest[l]);
      sums.own_logit = F::kOwn == Own::none ? A(0) : s.own_logit[l];
      sums.own_weight = s.own_weight[l];
      sums.side = s.side[l];
      sums.side_weight = s.side_weight[l];
      sums.own_side_weight = s.own_side_weight[l];
      sums.gradient_scale = s.gradient_scale[l];
      const RowResult<double> result = formula.finish(sums);
      s.loss[l] = static_cast<A>(result.loss * s.loss_scale[l]);
      s.lse[l] = static_cast<A>(result.lse);
      s.scale[l] = static_cast<A>(result.scale);
      s.offset[l] = static_cast<A>(result.offset);
      s.log_total[l] = static_cast<A>(result.log_total);
      s.own_out[l] = static_cast<A>(result.own);
    }
    double sum = 0;
    for (int64_t l = 0; l < rows; ++l) {
      if (!s.keep[l]) s.loss[l] = A(0);
      sum += s.loss[l];
    }
    if (a.loss) memcpy(static_cast<A*>(a.loss) + row, s.loss, rows * sizeof(A));
    if (a.lse) memcpy(static_cast<A*>(a.lse) + row, s.lse, rows * sizeof(A));
    if (a.predicted) {
      for (int64_t l = 0; l < rows; ++l) a.predicted[row + l] = s.peak_class[l];
    }
    return sum;
  }

  void map(const Tile& tile, const State& s) const {
    const F formula = f;
    const int64_t lanes = tile.out_lanes;
    const A* w = static_cast<const A*>(a.class_weight);
    for (int64_t c = 0; c < a.classes; ++c) {
      const A* x = tile.x + c * tile.step;
      const A* y = F::kTwoInputs ? tile.y + c * tile.step : nullptr;
      const A* terms = tile.terms + c * tile.step;
      A* out = tile.out + c * tile.out_step;
      const A weight = F::kSide ? w[c] : A(0);
#pragma GCC ivdep
      for (int64_t l = 0; l < lanes; ++l) {
        const RowCoefficients<A> k{s.peak[l], s.scale[l], s.offset[l], s.log_total[l]};
        out[l] = formula.map(x[l], F::kTwoInputs ? y[l] : A(0), weight, F::kKeepTerms ? terms[l] : A(0), k);
      }
    }
    if constexpr (F::kOwn != Own::none) {
      for (int64_t l = 0; l < lanes; ++l) {
        if (s.own_class[l] < 0) continue;
        tile.out[s.own_class[l] * tile.out_step + l] = formula.map_own(s.own_input[l], s.own_out[l]);
      }
    }
  }

  void map_second(const Tile& tile, const State& s) const {
    const F formula = f;
    const int64_t lanes = tile.out_lanes;
    const A* w = static_cast<const A*>(a.class_weight);
    for (int64_t c = 0; c < a.classes; ++c) {
      const A* x = tile.x + c * tile.step;
      const A* y = tile.y + c * tile.step;
      A* out = tile.out2 + c * tile.out2_step;
      const A weight = w[c];
#pragma GCC ivdep
      for (int64_t l = 0; l < lanes; ++l) {
        const RowCoefficients<A> k{s.peak[l], s.scale[l], s.offset[l], s.log_total[l]};
        out[l] = formula.map_second(x[l], y[l], weight, k);
      }
    }
  }
};

}  // namespace FUSED_ML_NAMESPACE
