// Rows: lanes are classes. A row is reduced in blocks, each on its own, that are merged in order: the logits
// are read from memory once, float sums stay short, and a row gives the same bits whether one thread works on
// it or several. A stream whose classes do not lie side by side passes through a block of scratch, as one of
// another type does.
#pragma once

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kClassBlock = 2048;  // classes a block: its logits and terms stay in the first-level cache
constexpr int64_t kSplitRows = 16;     // fewer rows than this,
constexpr int64_t kSplitClasses = 65536;  // of more classes: several threads share a row
constexpr int64_t kTaskElements = 16384;  // at least so many elements a task

// So many bytes of logits may come from memory.
constexpr int64_t kFromMemory = int64_t{2} << 20;

template <class F, class A>
class RowLoop {
  using Reference = typename F::Reference;
  // Terms that need nothing first and nothing else: in one loop.
  static constexpr bool kPlainSum = !F::kPeak && F::kOwn == Own::none && !F::kKeepTerms;

  struct Block : RowBlock<F, A> {
    A factor = A(1);  // the block's terms, relative to the row's peak
  };

 public:
  RowLoop(const F& formula, const RowwiseArguments& arguments)
      : f(formula),
        a(arguments),
        blocks(divide_up(a.classes, kClassBlock)),
        split(a.rows < kSplitRows && a.classes > kSplitClasses),
        side_by_side(all_unit(a, &Stream::by_class)),
        past(F::kPeak && blocks > 1 && !split && side_by_side && a.out.data && !a.out2.data && !a.in_place &&
             a.type == arithmetic_dtype<A> && a.out_type == a.type && bytes() >= kPastCaches),
        in_output(F::kKeepTerms && !past && a.out.data && !a.in_place && in_memory(a.out, a.out_type)),
        by_second_level(FUSED_ML_VECTOR_BYTES == 64 && blocks == 1 && a.out.data &&
                        a.type == arithmetic_dtype<A> && bytes() >= kFromMemory) {}

  void run() const {
    double* losses = static_cast<double*>(thread_scratch(Scratch::call, a.rows * sizeof(double)));
    split ? run_split(losses) : run_whole(losses);
    if (a.loss_sum) *a.loss_sum = sum_in_order(losses, a.rows);
  }

 private:
  const F f;
  const RowwiseArguments& a;
  const int64_t blocks;
  const bool split;         // several threads share a row
  const bool side_by_side;  // a row's classes, in every stream
  const bool past;          // the output is written past the caches
  // The terms wait where the output goes, not in scratch: half as many lines for the first-level cache. Cross
  // entropy with gradient, from memory: 128x32000 1.40 -> 1.12 ms, 4096x1000 1.35 -> 1.29.
  const bool in_output;
  // Logits are asked for into the second-level cache: with outputs, two lines a step are more than the first
  // can wait for where steps are as short as AVX-512's. 4096x1000 1.29 -> 1.20 ms.
  const bool by_second_level;

  int64_t bytes() const { return a.rows * a.classes * static_cast<int64_t>(sizeof(A)); }

  static constexpr int64_t kBuffers = 4;

  // Scratch of a task: blocks of the operands in the arithmetic type, and the terms: a row of them if map
  // needs them again, else a block. Such a row may lie in the output instead.
  struct Buffers {
    A *x, *map_x, *y, *out, *terms;
  };
  bool row_of_terms() const { return F::kKeepTerms && a.out.data; }
  int64_t term_elements() const { return row_of_terms() && !in_output ? blocks * kClassBlock : kClassBlock; }
  A* output_row(int64_t row) const { return const_cast<A*>(at<A>(a.out, a.out_type, row, 0)); }

  static Buffers buffers_at(A* memory) {
    return {memory, memory + kClassBlock, memory + 2 * kClassBlock, memory + 3 * kClassBlock,
            memory + kBuffers * kClassBlock};
  }
  A* terms_of(int64_t block, A* terms) const { return row_of_terms() ? terms + block * kClassBlock : terms; }

  template <class E>
  const E* at(const Stream& s, DType type, int64_t row, int64_t block) const {
    return reinterpret_cast<const E*>(element(s, type, a.inner, row)) + block * kClassBlock;
  }
  // Whether a stream's rows are arrays of A.
  static bool in_memory(const Stream& s, DType type) {
    return type == arithmetic_dtype<A> && s.by_class == 1;
  }
  // A block of an operand in the arithmetic type: in place, or gathered and converted into `buffer`.
  const A* fetch(const Stream& s, int64_t row, int64_t block, A* buffer) const {
    if (in_memory(s, a.type)) return at<A>(s, a.type, row, block);
    with_type<A>(a.type, element(s, a.type, a.inner, row), [&](auto* p) {
      load_strided(p + block * kClassBlock * s.by_class, s.by_class, size_of(block), buffer);
    });
    return buffer;
  }
  RowAhead ahead_of(int64_t row, int64_t block, int64_t count) const {
    const int64_t read_bytes = bytes_of(a.type), write_bytes = bytes_of(a.out_type);
    const int64_t begin = block * kClassBlock, end = begin + count;
    const int64_t x_bytes = a.x.by_class * read_bytes, y_bytes = a.y.by_class * read_bytes;
    const char* x = element(a.x, a.type, a.inner, row) + end * x_bytes;
    const char* y = F::kTwoInputs ? element(a.y, a.type, a.inner, row) + end * y_bytes : x;
    if (!a.out.data || past) return {x, y, x, x_bytes, y_bytes, 0, by_second_level};
    const int64_t out_bytes = a.out.by_class * write_bytes;
    const char* out = element(a.out, a.out_type, a.inner, row) + begin * out_bytes;
    return {x, y, out, x_bytes, y_bytes, out_bytes, by_second_level};
  }
  int64_t size_of(int64_t block) const {
    const int64_t left = a.classes - block * kClassBlock;
    return left < kClassBlock ? left : kClassBlock;
  }

  // A row between its sums and its output.
  struct Turn {
    Chosen<A> chosen;
    RowResult<double> result;
    Block* states;
    Buffers buffers;
  };

  void run_whole(double* losses) const {
    const int64_t grain = divide_up(kTaskElements, a.classes);
    // Written past the caches, a row's output comes with the next row's sums.
    const int64_t places = past ? 2 : 1;
    run_parallel(a.rows, grain, [&](int64_t begin, int64_t end) {
      const size_t elements = kBuffers * kClassBlock + places * term_elements();
      A* memory = static_cast<A*>(
          thread_scratch(Scratch::task, elements * sizeof(A) + places * blocks * sizeof(Block)));
      Turn turns[2];
      for (int64_t i = 0; i < places; ++i) {
        turns[i].buffers = buffers_at(memory);
        turns[i].buffers.terms += i * term_elements();
        turns[i].states = reinterpret_cast<Block*>(memory + elements) + i * blocks;
      }
      A* x_buffer = turns[0].buffers.x;
      Look next = look(begin, 0, x_buffer);
      for (int64_t row = begin; row < end; ++row) {
        Turn& t = turns[row % places];
        const Turn& last = turns[(row + 1) % places];
        const bool behind = past && row > begin;
        t.chosen = chosen_at<A>(a, row);
        if (in_output) t.buffers.terms = output_row(row);
        for (int64_t b = 0; b < blocks; ++b) {
          t.states[b] = reduce(row, b, next, t.chosen.own, t.buffers,
                               behind ? past_block(row - 1, b, last) : PastBlock<A>{});
          if (b + 1 < blocks) next = look(row, b + 1, x_buffer);
        }
        t.result = finish(row, t.chosen, t.states, losses);
        // Here, where the CPU has little else to do than to wait for the result.
        if (F::kPeak && row + 1 < end) next = look(row + 1, 0, x_buffer);
        if (!past) put_out(row, t);
        if (behind) write_own(row - 1, last.chosen, last.states, last.result);
        if (!F::kPeak && row + 1 < end) next = look(row + 1, 0, x_buffer);
      }
      if (past) finish_past();
      if (past) put_out(end - 1, turns[(end - 1) % places]);
    });
  }
  PastBlock<A> past_block(int64_t row, int64_t block, const Turn& t) const {
    return {output_row(row) + block * kClassBlock,
            {at<A>(a.x, a.type, row, block), F::kTwoInputs ? at<A>(a.y, a.type, row, block) : nullptr,
             static_cast<const A*>(a.class_weight) + block * kClassBlock, terms_of(block, t.buffers.terms)},
            size_of(block),
            coefficients(t.result, t.states[block]),
            t.chosen.keep};
  }
  void put_out(int64_t row, const Turn& t) const {
    for (int64_t b = 0; b < blocks; ++b) map(row, b, t.chosen, t.result, t.states[b], t.buffers);
    write_own(row, t.chosen, t.states, t.result);
  }

  void run_split(double* losses) const {
    const int64_t tasks = a.rows * blocks;
    const int64_t shared = row_of_terms() && !in_output ? a.rows * blocks * kClassBlock : 0;
    A* memory = static_cast<A*>(thread_scratch(Scratch::split, shared * sizeof(A) + tasks * sizeof(Block)));
    Block* states = reinterpret_cast<Block*>(memory + shared);
    const auto each = [&](const auto& body) {
      run_parallel(tasks, kTaskElements / kClassBlock, [&](int64_t begin, int64_t end) {
        Buffers buffers = buffers_at(
            static_cast<A*>(thread_scratch(Scratch::task, (kBuffers + 1) * kClassBlock * sizeof(A))));
        for (int64_t t = begin; t < end; ++t) {
          // Rows that share lines are taken side by side, a block of each.
          const int64_t row = side_by_side ? t / blocks : t % a.rows;
          const int64_t block = side_by_side ? t % blocks : t / a.rows;
          if (shared) buffers.terms = memory + row * blocks * kClassBlock;
          if (in_output) buffers.terms = output_row(row);
          body(row, block, buffers);
        }
      });
    };
    each([&](int64_t row, int64_t block, const Buffers& buffers) {
      states[row * blocks + block] =
          reduce(row, block, look(row, block, buffers.x), chosen_at<A>(a, row).own, buffers, PastBlock<A>{});
    });
    RowResult<double> results[kSplitRows];
    for (int64_t row = 0; row < a.rows; ++row) {
      results[row] = finish(row, chosen_at<A>(a, row), states + row * blocks, losses);
    }
    each([&](int64_t row, int64_t block, const Buffers& buffers) {
      map(row, block, chosen_at<A>(a, row), results[row], states[row * blocks + block], buffers);
    });
    for (int64_t row = 0; row < a.rows; ++row) {
      write_own(row, chosen_at<A>(a, row), states + row * blocks, results[row]);
    }
  }

  // A first look at a block: its logits in the arithmetic type, their peak, and where it is if anyone asks.
  struct Look {
    const A* x;
    A peak;
    int32_t own;
  };
  Look look(int64_t row, int64_t block, A* buffer) const {
    const int64_t count = size_of(block);
    const F formula = f;
    const A* x = fetch(a.x, row, block, buffer);
    const Block unseen;
    Look seen{x, unseen.peak, unseen.own};
    if constexpr (F::kPeak) seen.peak = peak_of<A>(count, [=](int64_t j) { return formula.key(x[j]); });
    if (F::kOwn == Own::peak || a.predicted) {
      const A peak = seen.peak;
      seen.own =
          static_cast<int32_t>(first_where(count, [=](int64_t j) { return formula.key(x[j]) == peak; }));
    }
    return seen;
  }

  Block reduce(int64_t row, int64_t block, const Look& seen, int64_t own, const Buffers& buffers,
               const PastBlock<A>& behind) const {
    const int64_t begin = block * kClassBlock;
    const int64_t count = size_of(block);
    const A* x = seen.x;
    const A* y = F::kTwoInputs ? fetch(a.y, row, block, buffers.y) : nullptr;
    A* terms = terms_of(block, buffers.terms);
    const A* w = static_cast<const A*>(a.class_weight) + begin;
    const F formula = f;
    Block s;
    s.peak = seen.peak;
    s.own = seen.own;
    const int64_t left_out = F::kOwn == Own::peak ? s.own
                             : F::kOwn == Own::target
                                 ? (own >= begin && own < begin + count ? own - begin : -1)
                                 : -1;
    if (left_out >= 0) {
      s.own_input = x[left_out];
      s.own_logit = f.logit(f.key(s.own_input));
    }
    const A peak = f.logit(s.peak);
    if constexpr (F::kSide) {
      const auto u = [=](int64_t j) { return formula.weigh(w[j], F::kTwoInputs ? y[j] : A(0)); };
      s.side = sum_of(count, [=](int64_t j) {
        const A weight = u(j);
        return select(weight == A(0), A(0), weight * (peak - formula.logit(formula.key(x[j]))));
      });
      if (left_out >= 0) s.own_side_weight = u(left_out);
      const int64_t gap = F::kOwn == Own::peak && left_out >= 0 ? left_out : count;
      s.side_weight = sum_of(gap, u);
      if (gap < count) s.side_weight += sum_of(count - gap - 1, [=](int64_t j) { return u(gap + 1 + j); });
    }
    if constexpr (kPlainSum) {
      s.sum = sum_by_fours(count, [=](int64_t j) { return formula.term(NoReference{}, x[j], y[j], true); });
    } else {
      const auto sum = [&](const auto& after_step) {
        const RowTerms<F, A> row_terms{f, Reference::make(peak), ahead_of(row, block, count), a.exact_sums};
        row_terms.sum({x, y, terms, count, left_out}, after_step, s);
      };
      if (behind.to) {
        PastWriter<F, A> writer(f, behind);
        sum([&] { writer.step(); });
        writer.finish();
      } else {
        sum([] {});
      }
    }
    if (a.predicted && s.sum != s.sum) {
      // torch's argmax is the first NaN: make this block the row's first, whose sums are NaN whatever their
      // order.
      const int64_t nan = first_where(count, [=](int64_t j) { return x[j] != x[j]; });
      if (nan >= 0) s.peak = Constants<A>::infinity;
      if (nan >= 0) s.own = static_cast<int32_t>(nan);
    }
    return s;
  }

  static int64_t peak_block(const Block* states, int64_t count) {
    int64_t best = 0;
    for (int64_t b = 1; b < count; ++b) {
      if (states[b].peak > states[best].peak) best = b;
    }
    return best;
  }

  // Merges a row's blocks in order, leaves each its factor, and writes the row's numbers.
  RowResult<double> finish(int64_t row, const Chosen<A>& chosen, Block* states, double* losses) const {
    const int64_t best = peak_block(states, blocks);
    const double peak = F::kPeak ? double(f.logit(states[best].peak)) : 0.0;
    RowSums<double> s{};
    s.peak = peak;
    s.own_weight = chosen.weight;
    s.gradient_scale = chosen.gradient_scale;
    s.own_logit = -Constants<double>::infinity;
    for (int64_t b = 0; b < blocks; ++b) {
      const BlockScale scale = scale_of(f, states[b], peak, b == best);
      add_block<F>(states[b], scale, F::kOwn == Own::target || b == best, s);
      states[b].factor = static_cast<A>(scale.factor);
    }
    if (F::kOwn == Own::target && chosen.own >= 0) s.own_logit = states[chosen.own / kClassBlock].own_logit;
    RowResult<double> result = f.finish(s);
    result.peak = peak;
    const double loss = chosen.keep ? result.loss * chosen.loss_scale : 0.0;
    losses[row] = loss;
    if (a.loss) static_cast<A*>(a.loss)[row] = static_cast<A>(loss);
    if (a.lse) static_cast<A*>(a.lse)[row] = static_cast<A>(result.lse);
    if (a.predicted) a.predicted[row] = states[best].own < 0 ? 0 : best * kClassBlock + states[best].own;
    return result;
  }

  void map(int64_t row, int64_t block, const Chosen<A>& chosen, const RowResult<double>& result,
           const Block& state, const Buffers& buffers) const {
    if (!a.out.data && !a.out2.data) return;
    const int64_t count = size_of(block);
    const bool reads = F::kMapReadsInput && chosen.keep;
    // Of a row of one block, reduce has left in the buffers what is not read in place; where there is a peak
    // to look for, the next row's x has taken the place of this one's.
    const bool here = !F::kPeak && blocks == 1;
    const bool x_here = here && !in_memory(a.x, a.type), y_here = here && !in_memory(a.y, a.type);
    const A* x = x_here ? buffers.x : reads ? fetch(a.x, row, block, buffers.map_x) : nullptr;
    const A* y = y_here ? buffers.y : reads && F::kTwoInputs ? fetch(a.y, row, block, buffers.y) : nullptr;
    const A* w = static_cast<const A*>(a.class_weight) + block * kClassBlock;
    const A* terms = terms_of(block, buffers.terms);
    const RowCoefficients<A> c = coefficients(result, state);
    const F formula = f;
    if constexpr (F::kSecond) {  // before the first output, which may lie over x
      if (a.out2.data) {
        write(a.out2, row, block, count, chosen.keep, buffers.out,
              [=](int64_t j) { return formula.map_second(x[j], y[j], w[j], c); });
      }
    }
    if (!a.out.data) return;
    write(a.out, row, block, count, chosen.keep, buffers.out,
          [=](int64_t j) { return mapped(formula, MapInputs<A>{x, y, w, terms}, j, c); });
  }
  static RowCoefficients<A> coefficients(const RowResult<double>& result, const Block& state) {
    return {static_cast<A>(result.peak), static_cast<A>(result.scale * state.factor),
            static_cast<A>(result.offset), static_cast<A>(result.log_total)};
  }

  // A block of an output: value(j), or 0 for an ignored row, whatever its logits hold.
  template <class Value>
  void write(const Stream& s, int64_t row, int64_t block, int64_t count, bool keep, A* buffer,
             const Value& value) const {
    const bool direct = in_memory(s, a.out_type);
    A* to = direct ? const_cast<A*>(at<A>(s, a.out_type, row, block)) : buffer;
    if (keep) {
#pragma GCC ivdep
      for (int64_t j = 0; j < count; ++j) to[j] = value(j);
    } else {
      for (int64_t j = 0; j < count; ++j) to[j] = A(0);
    }
    if (direct) return;
    with_type<A>(a.out_type, element(s, a.out_type, a.inner, row), [&](auto* p) {
      store_strided(buffer, count, p + block * kClassBlock * s.by_class, s.by_class);
    });
  }

  void write_own(int64_t row, const Chosen<A>& chosen, const Block* states,
                 const RowResult<double>& result) const {
    if (F::kOwn == Own::none || !a.out.data || !chosen.keep) return;
    int64_t own = chosen.own;
    if (F::kOwn == Own::peak) {
      const int64_t best = peak_block(states, blocks);
      own = states[best].own < 0 ? -1 : best * kClassBlock + states[best].own;
    }
    if (own < 0) return;
    if constexpr (F::kOwn != Own::none) {
      const A input = states[own / kClassBlock].own_input;
      const A value = f.map_own(input, static_cast<A>(result.own));
      with_type<A>(a.out_type, element(a.out, a.out_type, a.inner, row),
                   [&](auto* p) { store(p + own * a.out.by_class, value); });
    }
  }
};

}  // namespace FUSED_ML_NAMESPACE
