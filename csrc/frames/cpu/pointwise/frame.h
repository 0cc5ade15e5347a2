// The pointwise frame: elements of any strides, with an optional sum. No mathematics, no torch.
//
// It walks over memory, converts, sums and shares the work among threads, once for all formulas, and hands a
// formula's loops pieces of elements that lie side by side in the arithmetic type. The elements are taken in
// chunks of kChunk, each with its own partial sum: the same bits for any number of threads.
#pragma once

#include "piece.h"
#include "frames/cpu/rows/short_runs.h"
#include "frames/cpu/vectors/vector_loops.h"

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kChunk = 16384;  // elements a task
constexpr int64_t kPiece = 1024;   // elements at a time: the converted operands stay in the first-level cache

template <class A>
class PointwiseFrame {
 public:
  PointwiseFrame(const PieceLoops<A>& loops, const A* options, const PointwiseArguments& arguments)
      : loop(choose(loops, arguments)), options(options), a(arguments), short_runs(a) {}

  void run() const {
    const int64_t chunks = divide_up(a.numel, kChunk);
    double* sums = static_cast<double*>(thread_scratch(Scratch::call, chunks * sizeof(double)));
    run_parallel(chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) sums[chunk] = run_chunk(chunk * kChunk);
    });
    if (a.sum) *a.sum = sum_in_order(sums, chunks);
  }

 private:
  const PieceLoop<A> loop;
  const A* const options;
  const PointwiseArguments& a;
  const ShortRuns<A> short_runs;

  struct Buffers {
    alignas(64) A x[kPiece], t[kPiece], w[kPiece + kShortRun], p[kPiece + kShortRun], g[kPiece],
        value[kPiece], dx[kPiece], dt[kPiece], ready[kPiece];
  };

  static PieceLoop<A> choose(const PieceLoops<A>& loops, const PointwiseArguments& a) {
    if (a.dt.data) return loops.all;
    if (!a.dx.data) return loops.value;
    return a.value.data || a.sum ? loops.both : loops.gradient;
  }

  double run_chunk(int64_t first) const {
    Buffers buffers;
    fill(buffers.t, A(0));
    fill(buffers.w, A(1));
    fill(buffers.p, A(1));
    fill(buffers.g, A(a.gradient_scale));
    if (repeats(a.w)) short_runs.repeat(a.w, kPiece + kShortRun, buffers.w);
    if (repeats(a.p)) short_runs.repeat(a.p, kPiece + kShortRun, buffers.p);
    const int64_t last = first + kChunk < a.numel ? first + kChunk : a.numel;
    const int64_t run = short_runs ? a.numel : a.sizes[a.dims - 1];
    double sum = 0;
    for (int64_t i = first; i < last;) {
      const int64_t offset = i % run;
      int64_t count = run - offset < last - i ? run - offset : last - i;
      if (count > kPiece) count = kPiece;
      sum += run_piece(i / run, offset, count, buffers);
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
  double run_piece(int64_t outer, int64_t offset, int64_t count, Buffers& b) const {
    Piece<A> piece;
    piece.count = count - count % kStep;
    piece.x = fetch(a.x, outer, offset, count, b.x);
    piece.t = fetch(a.t, outer, offset, count, b.t);
    piece.w = repeats(a.w) ? b.w + short_runs.phase(offset) : fetch(a.w, outer, offset, count, b.w);
    piece.p = repeats(a.p) ? b.p + short_runs.phase(offset) : fetch(a.p, outer, offset, count, b.p);
    piece.g = fetch(a.g, outer, offset, count, b.g);
    piece.value = place(a.value, outer, offset, b.value);
    piece.dx = place(a.dx, outer, offset, b.dx);
    piece.dt = place(a.dt, outer, offset, b.dt);
    piece.ready = b.ready;
    piece.past_value = where_past(a.value, offset);
    piece.past_dx = where_past(a.dx, offset);
    piece.ahead = ahead_of(outer, offset + count);
    if (piece.count) loop(options, piece);
    if (piece.count < count) run_rest(piece, count - piece.count);
    put(a.value, outer, offset, count, b.value);
    put(a.dx, outer, offset, count, b.dx);
    put(a.dt, outer, offset, count, b.dt);
    const A* value = piece.value;
    return a.sum ? sum_of(count, [=](int64_t i) { return value[i]; }) : 0.0;
  }

  // The elements behind the whole steps of a piece: copies of them, filled up to a step.
  void run_rest(const Piece<A>& piece, int64_t rest) const {
    alignas(64) A in[5][kStep] = {}, out[3][kStep];
    const A* const from[] = {piece.x, piece.t, piece.w, piece.p, piece.g};
    for (int k = 0; k < 5; ++k) {
      for (int64_t i = 0; i < rest; ++i) in[k][i] = from[k][piece.count + i];
    }
    Piece<A> step = piece;
    step.count = kStep;
    step.x = in[0], step.t = in[1], step.w = in[2], step.p = in[3], step.g = in[4];
    step.value = out[0], step.dx = out[1], step.dt = out[2];
    step.past_value = step.past_dx = nullptr;
    loop(options, step);
    keep(a.value.data || a.sum, out[0], piece.value, piece.past_value, piece.count, rest);
    keep(a.dx.data, out[1], piece.dx, piece.past_dx, piece.count, rest);
    keep(a.dt.data, out[2], piece.dt, static_cast<A*>(nullptr), piece.count, rest);
  }
  static void keep(bool wanted, const A* from, A* to, A* past, int64_t at, int64_t count) {
    for (int64_t i = 0; wanted && i < count; ++i) to[at + i] = from[i];
    for (int64_t i = 0; past && i < count; ++i) past[at + i] = from[i];
  }

  A* where_past(const Elements& e, int64_t offset) const {
    return past_caches(e) ? static_cast<A*>(const_cast<void*>(e.data)) + offset : nullptr;
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

}  // namespace FUSED_ML_NAMESPACE
