// The pointwise frame: elements of any strides, with an optional sum. No mathematics, no torch.
//
// A formula is a function (PointwiseInputs<A>, prepare(x)) -> PointwiseResult<A>: two loops over a piece
// rather than one, for where a single element's chain of operations is long, those that wait for their turn
// fill the CPU's scheduler and the units idle. The elements are taken in chunks of kChunk, each with its own
// partial sum: the same bits for any number of threads.
#pragma once

#include "../formulas/pointwise_types.h"
#include "convert.h"
#include "short_runs.h"
#include "vector_loops.h"

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kChunk = 16384;  // elements a task
constexpr int64_t kPiece = 1024;   // elements at a time: the converted operands stay in the first-level cache

template <class F, class A>
class PointwiseLoop {
 public:
  PointwiseLoop(const F& formula, const PointwiseArguments& arguments)
      : f(formula), a(arguments), short_runs(a) {}

  void run() const {
    const int64_t chunks = divide_up(a.numel, kChunk);
    double* sums = static_cast<double*>(thread_scratch(Scratch::call, chunks * sizeof(double)));
    run_parallel(chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) sums[chunk] = run_chunk(chunk * kChunk);
    });
    if (a.sum) *a.sum = sum_in_order(sums, chunks);
  }

 private:
  const F f;
  const PointwiseArguments& a;
  const ShortRuns<A> short_runs;

  struct Piece {
    alignas(64) A x[kPiece], t[kPiece], w[kPiece + kShortRun], p[kPiece + kShortRun], g[kPiece],
        value[kPiece], dx[kPiece], dt[kPiece], prepared[kPiece];
  };

  double run_chunk(int64_t first) const {
    Piece piece;
    fill(piece.t, A(0));
    fill(piece.w, A(1));
    fill(piece.p, A(1));
    fill(piece.g, A(a.gradient_scale));
    if (repeats(a.w)) short_runs.repeat(a.w, kPiece + kShortRun, piece.w);
    if (repeats(a.p)) short_runs.repeat(a.p, kPiece + kShortRun, piece.p);
    const int64_t last = first + kChunk < a.numel ? first + kChunk : a.numel;
    const int64_t run = short_runs ? a.numel : a.sizes[a.dims - 1];
    double sum = 0;
    for (int64_t i = first; i < last;) {
      const int64_t offset = i % run;
      int64_t count = run - offset < last - i ? run - offset : last - i;
      if (count > kPiece) count = kPiece;
      sum += run_piece(i / run, offset, count, piece);
      i += count;
    }
    finish_past();
    return sum;
  }

  static void fill(A* to, A value) {
    for (int64_t i = 0; i < kPiece; ++i) to[i] = value;
  }

  // Elements [offset, offset + count) of the innermost dimension, at index `outer` of the others; where that
  // is short, of all of them.
  double run_piece(int64_t outer, int64_t offset, int64_t count, Piece& piece) const {
    PointwiseInputs<const A*> in;
    in.x = fetch(a.x, outer, offset, count, piece.x);
    in.t = fetch(a.t, outer, offset, count, piece.t);
    in.w = repeats(a.w) ? piece.w + short_runs.phase(offset) : fetch(a.w, outer, offset, count, piece.w);
    in.p = repeats(a.p) ? piece.p + short_runs.phase(offset) : fetch(a.p, outer, offset, count, piece.p);
    in.g = fetch(a.g, outer, offset, count, piece.g);
    A* value = place(a.value, outer, offset, piece.value);
    A* dx = place(a.dx, outer, offset, piece.dx);
    A* dt = place(a.dt, outer, offset, piece.dt);
    const bool wants_value = a.value.data || a.sum;
    const Ahead ahead = ahead_of(outer, offset + count);
    const Past past{where_past(a.value, offset), where_past(a.dx, offset)};
    prepare(in.x, count, ahead, piece.prepared);
    if (a.dt.data) {
      compute<true, true, true>(in, piece.prepared, count, ahead, past, value, dx, dt);
    } else if (!a.dx.data) {
      compute<true, false, false>(in, piece.prepared, count, ahead, past, value, dx, dt);
    } else if (wants_value) {
      compute<true, true, false>(in, piece.prepared, count, ahead, past, value, dx, dt);
    } else {
      compute<false, true, false>(in, piece.prepared, count, ahead, past, value, dx, dt);
    }
    put(a.value, outer, offset, count, piece.value);
    put(a.dx, outer, offset, count, piece.dx);
    put(a.dt, outer, offset, count, piece.dt);
    return a.sum ? sum_of(count, [=](int64_t i) { return value[i]; }) : 0.0;
  }

  // Lines of the next piece to ask for, a step's at a time, the inputs' in the first loop and the outputs' in
  // the second, so that memory is never idle: those of an operand that does not lie evenly, or is not there,
  // again and again.
  struct Ahead {
    const char *x, *t, *value, *dx;
    int64_t x_step, t_step, value_step, dx_step;
  };
  // Outputs that go past the caches, from their buffers and a step at a time: 16777216 BCE gradients into
  // memory that is there 0.65 -> 0.52 ns an element and thread, and 0.58 where a piece at a time.
  struct Past {
    A *value, *dx;
  };
  A* where_past(const Elements& e, int64_t offset) const {
    return past_caches(e) ? static_cast<A*>(const_cast<void*>(e.data)) + offset : nullptr;
  }

  void prepare(const A* x, int64_t count, const Ahead& ahead, A* __restrict prepared) const {
    const F formula = f;
    int64_t i = 0;
    for (; i + kStep <= count; i += kStep) {
      __builtin_prefetch(ahead.x + i * ahead.x_step);
      __builtin_prefetch(ahead.t + i * ahead.t_step);
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) prepared[i + l] = formula.prepare(x[i + l]);
    }
#pragma GCC ivdep
    for (int64_t j = i; j < count; ++j) prepared[j] = formula.prepare(x[j]);
  }

  template <bool kValue, bool kDx, bool kDt>
  void compute(const PointwiseInputs<const A*>& in, const A* prepared, int64_t count, const Ahead& ahead,
               const Past& past, A* __restrict value, A* __restrict dx, A* __restrict dt) const {
    const F formula = f;
    const A *x = in.x, *t = in.t, *w = in.w, *p = in.p, *g = in.g;
    const auto take = [=](int64_t i) {
      const PointwiseResult<A> r = formula(PointwiseInputs<A>{x[i], t[i], w[i], p[i], g[i]}, prepared[i]);
      if constexpr (kValue) value[i] = r.value;
      if constexpr (kDx) dx[i] = r.dx;
      if constexpr (kDt) dt[i] = r.dt;
    };
    int64_t i = 0;
    for (; i + kStep <= count; i += kStep) {
      __builtin_prefetch(ahead.value + i * ahead.value_step, 1);
      __builtin_prefetch(ahead.dx + i * ahead.dx_step, 1);
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) take(i + l);
      if (past.value) store_step_past(value + i, past.value + i);
      if (past.dx) store_step_past(dx + i, past.dx + i);
    }
#pragma GCC ivdep
    for (int64_t j = i; j < count; ++j) take(j);
    for (int64_t j = i; past.value && j < count; ++j) past.value[j] = value[j];
    for (int64_t j = i; past.dx && j < count; ++j) past.dx[j] = dx[j];
  }

  int64_t position(const Elements& e, int64_t outer, int64_t offset) const {
    int64_t at = offset * e.strides[a.dims - 1];
    for (int d = a.dims - 2; d >= 0; --d) {
      at += outer % a.sizes[d] * e.strides[d];
      outer /= a.sizes[d];
    }
    return at;
  }
  Ahead ahead_of(int64_t outer, int64_t offset) const {
    const char* somewhere = static_cast<const char*>(a.x.data);
    Ahead ahead{somewhere, somewhere, somewhere, somewhere, 0, 0, 0, 0};
    look_ahead(a.x, outer, offset, ahead.x, ahead.x_step);
    look_ahead(a.t, outer, offset, ahead.t, ahead.t_step);
    if (!past_caches(a.value)) look_ahead(a.value, outer, offset, ahead.value, ahead.value_step);
    if (!past_caches(a.dx)) look_ahead(a.dx, outer, offset, ahead.dx, ahead.dx_step);
    return ahead;
  }
  void look_ahead(const Elements& e, int64_t outer, int64_t offset, const char*& at, int64_t& bytes) const {
    if (!e.data || step(e) != 1 || !evenly(e)) return;
    bytes = static_cast<int64_t>(bytes_of(e.type));
    at = static_cast<const char*>(e.data) + position(e, outer, offset) * bytes;
  }
  int64_t step(const Elements& e) const { return e.strides[a.dims - 1]; }
  // Whether a piece's elements lie at one distance.
  bool evenly(const Elements& e) const { return !short_runs || short_runs.even(e); }
  bool repeats(const Elements& e) const { return e.data && short_runs && short_runs.periodic(e); }
  bool past_caches(const Elements& e) const {
    return e.data && (a.dims == 1 || short_runs) && in_memory(e) && line_starts_at(e.data) &&
           a.numel * static_cast<int64_t>(sizeof(A)) >= kPastCaches;
  }
  bool in_memory(const Elements& e) const {
    return e.type == arithmetic_dtype<A> && step(e) == 1 && evenly(e);
  }

  // An operand that is not there keeps the constant its buffer was filled with.
  const A* fetch(const Elements& e, int64_t outer, int64_t offset, int64_t count, A* buffer) const {
    if (!e.data) return buffer;
    if (!evenly(e)) {
      short_runs.gather(e, offset, count, buffer);
      return buffer;
    }
    const int64_t at = position(e, outer, offset);
    if (in_memory(e)) return static_cast<const A*>(e.data) + at;
    with_type<A>(e.type, e.data, [&](auto* p) { load_strided(p + at, step(e), count, buffer); });
    return buffer;
  }
  A* place(const Elements& e, int64_t outer, int64_t offset, A* buffer) const {
    if (!e.data || !in_memory(e) || past_caches(e)) return buffer;
    return static_cast<A*>(const_cast<void*>(e.data)) + position(e, outer, offset);
  }
  void put(const Elements& e, int64_t outer, int64_t offset, int64_t count, const A* buffer) const {
    if (!e.data || in_memory(e)) return;
    if (!evenly(e)) return short_runs.scatter(e, offset, count, buffer);
    const int64_t at = position(e, outer, offset);
    with_type<A>(e.type, e.data, [&](auto* p) { store_strided(buffer, count, p + at, step(e)); });
  }
};

template <class F, class A>
void pointwise(const F& formula, const PointwiseArguments& a) {
  PointwiseLoop<F, A>(formula, a).run();
}

}  // namespace FUSED_ML_NAMESPACE
