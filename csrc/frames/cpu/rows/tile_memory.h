// Between memory of any strides and a tile [step, class, lane], whose lanes are rows.
#pragma once

namespace FUSED_ML_NAMESPACE {

// Rows [row, row + rows) of the operands.
struct TileRows {
  int64_t row, rows;
};

template <class A>
class TileMemory {
 public:
  // one_outer: a tile is rows of one outer index, at one distance in memory.
  TileMemory(const RowwiseArguments& arguments, bool rows_of_one_outer)
      : a(arguments), one_outer(rows_of_one_outer) {}

  // How a stream is best walked: each of a call's for itself.
  enum class Walk { lanes, classes, any };
  Walk walk_of(const Stream& s) const {
    if (!one_outer) return Walk::any;
    return s.by_inner == 1 ? Walk::lanes : s.by_class == 1 ? Walk::classes : Walk::any;
  }

  // Whether an output is written past the caches: lines of rows side by side. 8x21x256x256 with gradient into
  // memory that is there: 0.73 -> 0.66 ns an element and thread.
  bool past_caches(const Stream& s) const {
    const int64_t bytes = bytes_of(a.out_type);
    const auto lines = [&](int64_t elements) { return elements * bytes % kLine == 0; };
    return walk_of(s) == Walk::lanes && a.rows * a.classes * bytes >= kPastCaches && line_starts_at(s.data) &&
           lines(s.by_class) && lines(s.by_outer) && a.inner % kStep == 0;
  }

  // Rows of an input into a tile; the lanes behind the last row get 0.
  void gather(const Stream& s, const TileRows& t, A* tile, A* scratch) const {
    const int64_t classes = a.classes;
    with_type<A>(a.type, s.data, [&](auto* base) {
      if (walk_of(s) == Walk::lanes) {
        const auto* p = base + offset_of(s, a.inner, t.row);
        for (int64_t c = 0; c < classes; ++c) {
          each_step(t, [&](int64_t step, int64_t count) {
            load_lanes(p + c * s.by_class + step * kStep, count, tile + (step * classes + c) * kStep);
          });
        }
        return;
      }
      if (s.by_class == 0) return spread(s, t, base, tile);
      const int64_t done = rows_to_lanes(s, t, base, tile, scratch);
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

  // A tile into rows of an output.
  void put(const Stream& s, const TileRows& t, const A* tile, A* scratch) const {
    const int64_t classes = a.classes;
    with_type<A>(a.out_type, s.data, [&](auto* base) {
      if (walk_of(s) == Walk::lanes) {
        auto* p = base + offset_of(s, a.inner, t.row);
        const auto each_class = [&](const auto& store) {
          for (int64_t c = 0; c < classes; ++c) {
            each_step(t, [&](int64_t step, int64_t count) {
              store(tile + (step * classes + c) * kStep, count, p + c * s.by_class + step * kStep);
            });
          }
        };
        if (past_caches(s)) {
          each_class([](const A* from, int64_t, auto* to) { store_step_past(from, to); });
          finish_past();
        } else {
          each_class([](const A* from, int64_t count, auto* to) { store_lanes(from, count, to); });
        }
        return;
      }
      const int64_t done = lanes_to_rows(s, t, tile, base, scratch);
      each_row(s, t, done, [&](int64_t row, int64_t at) {
        const A* lane = tile + row / kStep * kStep * classes + row % kStep;
        for (int64_t c = 0; c < classes; ++c) store(base + at + c * s.by_class, lane[c * kStep]);
      });
    });
  }

  // Up to kStep elements that lie side by side, and the lanes of a step.
  template <class T>
  FUSED_ML_INLINE static void load_lanes(const T* __restrict from, int64_t count, A* __restrict to) {
    if (count == kStep) {
      copy_step(from, to);
    } else {
      for (int64_t l = 0; l < kStep; ++l) to[l] = l < count ? load(from + l) : A(0);
    }
  }
  template <class T>
  FUSED_ML_INLINE static void store_lanes(const A* __restrict from, int64_t count, T* __restrict to) {
    if (count == kStep) {
      copy_step(from, to);
    } else {
      for (int64_t l = 0; l < count; ++l) store(to + l, from[l]);
    }
  }

 private:
  const RowwiseArguments& a;
  const bool one_outer;

  // One element a row, for all of its classes.
  template <class T>
  void spread(const Stream& s, const TileRows& t, const T* base, A* tile) const {
    const int64_t size = a.classes * kStep;
    for (int64_t row = t.rows; row % kStep; ++row) tile[row / kStep * size + row % kStep] = A(0);
    each_row(s, t, 0,
             [&](int64_t row, int64_t at) { tile[row / kStep * size + row % kStep] = load(base + at); });
    for (A* step = tile; step < tile + divide_up(t.rows, kStep) * size; step += size) {
      for (int64_t c = 1; c < a.classes; ++c) copy_step(step, step + c * kStep);
    }
  }

  template <class Body>
  FUSED_ML_INLINE void each_step(const TileRows& t, const Body& body) const {
    int64_t step = 0;
    for (; (step + 1) * kStep <= t.rows; ++step) body(step, kStep);
    if (step * kStep < t.rows) body(step, t.rows - step * kStep);
  }

  // Calls body(row of the tile, its offset in the stream) from row `first` on.
  template <class Body>
  FUSED_ML_INLINE void each_row(const Stream& s, const TileRows& t, int64_t first, const Body& body) const {
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
  int64_t rows_to_lanes(const Stream& s, const TileRows& t, const float* base, float* tile, float*) const {
    if (walk_of(s) != Walk::classes) return 0;
    return rows_to_tile(base + offset_of(s, a.inner, t.row), s.by_inner, t.rows, a.classes, tile);
  }
  template <class T>
  int64_t rows_to_lanes(const Stream& s, const TileRows& t, const T* base, float* tile,
                        float* scratch) const {
    if (walk_of(s) != Walk::classes) return 0;
    const T* from = base + offset_of(s, a.inner, t.row);
    each_run(s, t.rows, [&](int64_t first, int64_t count) {
      load_strided(from + first * s.by_inner, 1, count, scratch + first * a.classes);
    });
    return rows_to_tile(scratch, a.classes, t.rows, a.classes, tile);
  }
  int64_t rows_to_lanes(const Stream&, const TileRows&, const double*, double*, double*) const { return 0; }

  int64_t lanes_to_rows(const Stream& s, const TileRows& t, const float* tile, float* base, float*) const {
    if (walk_of(s) != Walk::classes) return 0;
    return tile_to_rows(tile, t.rows, a.classes, base + offset_of(s, a.inner, t.row), s.by_inner);
  }
  template <class T>
  int64_t lanes_to_rows(const Stream& s, const TileRows& t, const float* tile, T* base,
                        float* scratch) const {
    if (walk_of(s) != Walk::classes) return 0;
    T* to = base + offset_of(s, a.inner, t.row);
    const int64_t done = tile_to_rows(tile, t.rows, a.classes, scratch, a.classes);
    each_run(s, done, [&](int64_t first, int64_t count) {
      store_strided(scratch + first * a.classes, count, to + first * s.by_inner, 1);
    });
    return done;
  }
  int64_t lanes_to_rows(const Stream&, const TileRows&, const double*, double*, double*) const { return 0; }

  // Calls body(first row, elements that lie side by side from there): all rows at once where there is no gap.
  template <class Body>
  FUSED_ML_INLINE void each_run(const Stream& s, int64_t rows, const Body& body) const {
    const int64_t together = s.by_inner == a.classes ? rows : 1;
    for (int64_t row = 0; row < rows; row += together) body(row, together * a.classes);
  }
};

}  // namespace FUSED_ML_NAMESPACE
