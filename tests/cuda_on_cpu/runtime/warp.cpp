// Warp operations: the lanes of a mask meet, and each gets its result.
#include <bit>

#include "block.h"
#include "sanitizers.h"

namespace cuda_on_cpu {
namespace {

constexpr uint64_t kUndefined = ~uint64_t{0};

template <class Combine>
void reduce_lanes(Thread* lanes, unsigned mask, Combine combine) {
  uint32_t total = static_cast<uint32_t>(lanes[std::countr_zero(mask)].value);
  for (unsigned rest = mask & (mask - 1); rest != 0; rest &= rest - 1)
    total = combine(total, static_cast<uint32_t>(lanes[std::countr_zero(rest)].value));
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) lanes[std::countr_zero(rest)].result = total;
}

void shuffle_lanes(Thread* lanes, unsigned mask) {
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    Thread& lane = lanes[std::countr_zero(rest)];
    lane.result = (mask >> lane.source & 1) != 0 ? lanes[lane.source].value : kUndefined;
  }
}

void match_lanes(Thread* lanes, unsigned mask) {
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    Thread& lane = lanes[std::countr_zero(rest)];
    lane.result = 0;
    for (unsigned other = mask; other != 0; other &= other - 1)
      if (lanes[std::countr_zero(other)].value == lane.value) lane.result |= other & -other;
  }
}

void ballot_lanes(Thread* lanes, unsigned mask) {
  uint64_t votes = 0;
  for (unsigned rest = mask; rest != 0; rest &= rest - 1)
    if (lanes[std::countr_zero(rest)].value != 0) votes |= rest & -rest;
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) lanes[std::countr_zero(rest)].result = votes;
}

void give_results(Exchange exchange, Thread* lanes, unsigned mask) {
  const auto is = [](uint32_t x) { return static_cast<int32_t>(x); };
  switch (exchange) {
    case Exchange::sync:
      return;
    case Exchange::shuffle:
      return shuffle_lanes(lanes, mask);
    case Exchange::ballot:
      return ballot_lanes(lanes, mask);
    case Exchange::match_any:
      return match_lanes(lanes, mask);
    case Exchange::add:
      return reduce_lanes(lanes, mask, [](uint32_t a, uint32_t b) { return a + b; });
    case Exchange::min_signed:
      return reduce_lanes(lanes, mask, [is](uint32_t a, uint32_t b) { return is(b) < is(a) ? b : a; });
    case Exchange::min_unsigned:
      return reduce_lanes(lanes, mask, [](uint32_t a, uint32_t b) { return b < a ? b : a; });
    case Exchange::max_signed:
      return reduce_lanes(lanes, mask, [is](uint32_t a, uint32_t b) { return is(a) < is(b) ? b : a; });
    case Exchange::max_unsigned:
      return reduce_lanes(lanes, mask, [](uint32_t a, uint32_t b) { return a < b ? b : a; });
    case Exchange::bit_and:
      return reduce_lanes(lanes, mask, [](uint32_t a, uint32_t b) { return a & b; });
    case Exchange::bit_or:
      return reduce_lanes(lanes, mask, [](uint32_t a, uint32_t b) { return a | b; });
    case Exchange::bit_xor:
      return reduce_lanes(lanes, mask, [](uint32_t a, uint32_t b) { return a ^ b; });
  }
}

void check_agreement(const Thread& last, const Thread* lanes, unsigned mask) {
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    const Thread& lane = lanes[l];
    if (lane.mask != last.mask)
      fail(last.where, "divergent warp operation: mask 0x%08x here, 0x%08x in lane %d", last.mask, lane.mask,
           l);
    if (!same_place(lane.where, last.where))
      fail(last.where, "divergent warp operation: lane %d is at the one in %s:%u", l, lane.where.file_name(),
           lane.where.line());
  }
}

// Lanes that the block does not have may be named by the full mask alone, the idiom for a whole warp.
unsigned lanes_to_meet(const Thread& self, const Warp& warp, int lane) {
  if ((self.mask >> lane & 1) == 0)
    fail(self.where, "warp operation with mask 0x%08x, which lacks the calling lane %d", self.mask, lane);
  if ((self.mask & ~warp.present) != 0 && self.mask != 0xffffffffu)
    fail(self.where, "warp operation with mask 0x%08x, but the warp's lanes are 0x%08x", self.mask,
         warp.present);
  return self.mask & warp.present;
}

}  // namespace

int lane() { return block.number(*block.running) % kWarp; }

uint64_t meet_warp(Exchange exchange, unsigned mask, uint64_t value, int source, Where where) {
  Thread& self = *block.running;
  const int number = block.number(self), lane = number % kWarp, first = number - lane;
  Warp& warp = block.warps[first / kWarp];
  self.where = where;
  self.mask = mask;
  self.value = value;
  self.source = source;
  const unsigned meeting = lanes_to_meet(self, warp, lane);
  self.state = State::at_warp;
  warp.waiting |= 1u << lane;
  const int lowest = std::countr_zero(meeting);
  // Of all warp operations __syncwarp alone orders memory; two tokens in turn, as for the block's barrier.
  const char* const token = &warp.sync_token[lowest][warp.sync_parity[lowest]];
  if (exchange == Exchange::sync) tsan_release(token);
  if ((warp.waiting & meeting) == meeting) {
    check_agreement(self, block.threads + first, meeting);
    give_results(exchange, block.threads + first, meeting);
    if (exchange == Exchange::sync) warp.sync_parity[lowest] ^= 1;
    warp.waiting &= ~meeting;
    make_ready(first, meeting);
  }
  sleep();
  if (exchange == Exchange::sync) tsan_acquire(token);
  return self.result;
}

}  // namespace cuda_on_cpu
