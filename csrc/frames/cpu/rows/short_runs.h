// Operands whose innermost dimension is short: pieces of them go over its ends, through scratch.
#pragma once

#include "frames/cpu/vectors/convert.h"

namespace FUSED_ML_NAMESPACE {

// Under so many elements a piece of one run costs more around its loops than in them.
constexpr int64_t kShortRun = 256;

template <class A>
class ShortRuns {
 public:
  explicit ShortRuns(const PointwiseArguments& arguments)
      : a(arguments), run(a.sizes[a.dims - 1]), there(a.dims > 1 && run < kShortRun) {}

  // Whether the innermost dimension is short.
  explicit operator bool() const { return there; }

  // Whether the operand's elements lie at one distance all the same.
  bool even(const Elements& e) const {
    for (int d = 0; d + 1 < a.dims; ++d) {
      if (e.strides[d] != e.strides[d + 1] * a.sizes[d + 1]) return false;
    }
    return true;
  }

  // Whether all runs are one and the same.
  bool periodic(const Elements& e) const {
    for (int d = 0; d + 1 < a.dims; ++d) {
      if (e.strides[d]) return false;
    }
    return true;
  }
  // The run over and over, `count` elements; those from `first` on start at phase(first).
  void repeat(const Elements& e, int64_t count, A* to) const {
    with_type<A>(e.type, e.data, [&](auto* p) { load_strided(p, e.strides[a.dims - 1], run, to); });
    for (int64_t i = run; i < count; ++i) to[i] = to[i - run];
  }
  int64_t phase(int64_t first) const { return first % run; }

  // Elements [first, first + count) of an operand, in the order of the sizes.
  void gather(const Elements& e, int64_t first, int64_t count, A* to) const {
    with_type<A>(e.type, e.data, [&](auto* p) {
      walk(e, first, count, [&](int64_t at, int64_t i) { to[i] = load(p + at); });
    });
  }
  void scatter(const Elements& e, int64_t first, int64_t count, const A* from) const {
    with_type<A>(e.type, e.data, [&](auto* p) {
      walk(e, first, count, [&](int64_t at, int64_t i) { store(p + at, from[i]); });
    });
  }

 private:
  const PointwiseArguments& a;
  const int64_t run;
  const bool there;

  int64_t position(const Elements& e, int64_t outer) const {
    int64_t at = 0;
    for (int d = a.dims - 2; d >= 0; --d) {
      at += outer % a.sizes[d] * e.strides[d];
      outer /= a.sizes[d];
    }
    return at;
  }

  // Calls body(where in memory, which of the count). Whole runs of one outer dimension come together, and
  // where they are the shorter, across them.
  template <class Body>
  FUSED_ML_INLINE void walk(const Elements& e, int64_t first, int64_t count, const Body& body) const {
    const int64_t step = e.strides[a.dims - 1], next = e.strides[a.dims - 2], runs = a.sizes[a.dims - 2];
    for (int64_t i = 0; i < count;) {
      const int64_t outer = (first + i) / run, offset = (first + i) % run, left = count - i;
      const int64_t at = position(e, outer);
      if (offset || left < run) {
        const int64_t here = run - offset < left ? run - offset : left;
        for (int64_t j = 0; j < here; ++j) body(at + (offset + j) * step, i + j);
        i += here;
        continue;
      }
      const int64_t rest = runs - outer % runs, together = left / run < rest ? left / run : rest;
      if (run < together) {
        for (int64_t j = 0; j < run; ++j) {
          for (int64_t r = 0; r < together; ++r) body(at + r * next + j * step, i + r * run + j);
        }
      } else {
        for (int64_t r = 0; r < together; ++r) {
          for (int64_t j = 0; j < run; ++j) body(at + r * next + j * step, i + r * run + j);
        }
      }
      i += together * run;
    }
  }
};

}  // namespace FUSED_ML_NAMESPACE
