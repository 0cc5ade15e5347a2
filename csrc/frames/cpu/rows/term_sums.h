// Terms and their sums, kStep lanes at a time, in two loops over a stage of steps: what comes before the
// polynomial of each term, then the polynomials and the sums. In one loop the chain of operations from a
// logit to its sum is so long that operations that wait for their turn fill the CPU's scheduler and its units
// idle: 13.4 cycles a step of AVX-512 where two loops take 10.0 (AVX2: 28 and 20).
#pragma once

#include "frames/cpu/vectors/vector_loops.h"

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kStage = 32 * kStep;  // lanes a stage: in the first-level cache

// A stage's terms before their second half.
template <class A>
struct ReducedTerms {
  alignas(64) A t[kStage], scale[kStage];

  FUSED_ML_INLINE void set(int64_t i, const Reduced<A>& term) { t[i] = term.t, scale[i] = term.scale; }
  FUSED_ML_INLINE Parts<A> get(int64_t i) const { return parts(Reduced<A>{t[i], scale[i]}); }
  FUSED_ML_INLINE void drop(int64_t i) { scale[i] = A(0); }
};
// Terms that have none.
template <class A>
struct WholeTerms {
  alignas(64) A value[kStage];

  FUSED_ML_INLINE void set(int64_t i, A term) { value[i] = term; }
  FUSED_ML_INLINE Parts<A> get(int64_t i) const { return {value[i], A(0)}; }
  FUSED_ML_INLINE void drop(int64_t i) { value[i] = A(0); }
};
template <class F, class A>
using StageOf =
    std::conditional_t<std::is_same_v<typename F::Reference, NoReference>, WholeTerms<A>, ReducedTerms<A>>;

template <class A>
struct TermSums {
  alignas(64) double sum[kStep];
  alignas(64) A rest[kStep];  // what the terms' rounding lost

  TermSums() {
    for (int l = 0; l < kStep; ++l) sum[l] = 0;
    for (int l = 0; l < kStep; ++l) rest[l] = A(0);
  }

  // Lanes [first, last) of a stage, whole steps; their terms go to `terms`, if they are kept. Not exact:
  // rounded to A within a stage, by 2^-21 of the sum at most, which results of a half type do not notice: a
  // step of a bfloat16 row with gradient took 22.0 cycles, and takes 18.9.
  template <bool kKeep, class Stage>
  FUSED_ML_INLINE void add(const Stage& stage, int64_t first, int64_t last, A* __restrict terms, bool exact) {
    exact ? add_exactly<kKeep>(stage, first, last, terms) : add_rounded<kKeep>(stage, first, last, terms);
  }

 private:
  template <bool kKeep, class Stage>
  FUSED_ML_INLINE void add_exactly(const Stage& stage, int64_t first, int64_t last, A* __restrict terms) {
    double *sums = in_memory(sum), lane_sum[kStep];
    A *rests = in_memory(rest), lane_rest[kStep];
    for (int l = 0; l < kStep; ++l) lane_sum[l] = sums[l];
    for (int l = 0; l < kStep; ++l) lane_rest[l] = rests[l];
    for (int64_t i = first; i < last; i += kStep) {
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) {
        const Parts<A> term = stage.get(i + l);
        if constexpr (kKeep) terms[i - first + l] = term.value;
        accumulate(lane_sum[l], lane_rest[l], term);
      }
    }
    for (int l = 0; l < kStep; ++l) sums[l] = lane_sum[l];
    for (int l = 0; l < kStep; ++l) rests[l] = lane_rest[l];
  }

  template <bool kKeep, class Stage>
  FUSED_ML_INLINE void add_rounded(const Stage& stage, int64_t first, int64_t last, A* __restrict terms) {
    double* sums = in_memory(sum);
    A lane_sum[kStep];
    for (int l = 0; l < kStep; ++l) lane_sum[l] = A(0);
    for (int64_t i = first; i < last; i += kStep) {
      FUSED_ML_LANES
      for (int l = 0; l < kStep; ++l) {
        const A value = stage.get(i + l).value;
        if constexpr (kKeep) terms[i - first + l] = value;
        lane_sum[l] += value;
      }
    }
    for (int l = 0; l < kStep; ++l) sums[l] += static_cast<double>(lane_sum[l]);
  }
};

}  // namespace FUSED_ML_NAMESPACE
