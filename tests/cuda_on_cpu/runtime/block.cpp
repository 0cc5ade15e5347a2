// Threads of a block as fibers: who runs next, and barriers.
#include "block.h"

#include <cstring>
#include <memory>
#include <utility>

#include "sanitizers.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace cuda_on_cpu {

Block block;

bool same_place(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

uint32_t random_below(uint32_t bound) {
  block.random ^= block.random << 13;
  block.random ^= block.random >> 7;
  block.random ^= block.random << 17;
  return static_cast<uint32_t>((block.random >> 32) * bound >> 32);
}

namespace {

[[noreturn]] void report_standstill() {
  const int exited = block.count - block.alive;
  for (int i = 0; i < block.count; i++) {
    Thread& thread = block.threads[i];
    if (thread.state == State::exited) continue;
    block.running = &thread;
    threadIdx = thread.index;
    if (thread.state == State::at_barrier && exited > 0)
      fail(thread.where, "divergent barrier: %d of the block's threads exited before it", exited);
    if (thread.state == State::at_barrier)
      fail(thread.where, "divergent barrier: only %d of the block's %d threads come to it", block.at_barrier,
           block.count);
    for (int l = 0; l < kWarp; l++) {
      const int other = i / kWarp * kWarp + l;
      if ((thread.mask >> l & 1) != 0 && other < block.count && block.threads[other].state == State::exited)
        fail(thread.where, "warp operation with mask 0x%08x, which names lane %d that has exited",
             thread.mask, l);
    }
    fail(thread.where, "divergent warp operation: not every lane of mask 0x%08x comes to it", thread.mask);
  }
  fail(Where::current(), "no thread to run");
}

Thread& take_ready() {
  if (block.ready_count == 0) report_standstill();
  if (block.order == Order::shuffled)
    std::swap(block.ready[random_below(block.ready_count)], block.ready[block.ready_count - 1]);
  return block.threads[block.ready[--block.ready_count]];
}

void enter(Thread& next) {
  block.running = &next;
  threadIdx = next.index;
}

void fiber_body();

Fiber& idle_fiber() {
  if (block.idle.empty()) {
    const TsanIgnore ignore;
    block.fibers.push_back(std::make_unique<Fiber>(fiber_body, static_cast<int>(block.fibers.size())));
    return *block.fibers.back();
  }
  Fiber& fiber = *block.idle.back();
  block.idle.pop_back();
  return fiber;
}

void resume(Fiber& from, Thread& next) {
  if (next.fiber == nullptr) next.fiber = &idle_fiber();
  enter(next);
  tsan_switch(next.tsan);
  from.switch_to(*next.fiber);
}

// A fiber runs one thread after another for as long as they do not wait: such threads cost no switch at all.
// ThreadSanitizer would take two threads' use of one stack for a race, so there no stack is used twice.
void fiber_body() {
  for (;;) {
    Thread& thread = *block.running;
    Fiber& fiber = *thread.fiber;
    tsan_acquire(&block.start_token);
    block.work->run(block.work->arguments);
    thread.state = State::exited;
    tsan_release(&block.grid_token);
    Thread* const next = --block.alive > 0 ? &take_ready() : nullptr;
    if (next != nullptr && next->fiber == nullptr && !kThreadSanitizer) {
      next->fiber = &fiber;
      enter(*next);
      continue;
    }
    if (!kThreadSanitizer) block.idle.push_back(&fiber);
    if (next != nullptr) {
      resume(fiber, *next);
    } else {
      tsan_switch(block.launcher_tsan);
      fiber.switch_to(block.launcher);
    }
  }
}

// Making one costs far more than most kernels. A launch comes after all that the ones before it did: what one
// of their threads has seen orders nothing within this one.
void* tsan_of_a_new_thread() {
  if (block.rested_tsan.empty()) return tsan_create();
  void* const rested = block.rested_tsan.back();
  block.rested_tsan.pop_back();
  return rested;
}

void reset_threads() {
  tsan_release(&block.start_token);
  uint3 index{0, 0, 0};
  for (int i = 0; i < block.count; i++) {
    Thread& thread = block.threads[i];
    thread.index = index;
    thread.state = State::ready;
    thread.fiber = nullptr;
    thread.fenced = false;
    thread.tsan = tsan_of_a_new_thread();
    if (++index.x < blockDim.x) continue;
    index.x = 0;
    if (++index.y < blockDim.y) continue;
    index.y = 0;
    index.z++;
  }
  for (int first = 0; first < block.count; first += kWarp) {
    const int lanes = block.count - first;
    Warp& warp = block.warps[first / kWarp];
    warp.present = lanes >= kWarp ? 0xffffffffu : (1u << lanes) - 1;
    warp.waiting = 0;
  }
}

void make_all_ready() {
  const int last = (block.count - 1) / kWarp;
  for (int i = 0; i <= last; i++) {
    const int warp = block.order == Order::forward ? last - i : i;
    make_ready(warp * kWarp, block.warps[warp].present);
  }
}

void complete_barrier(const Thread& last) {
  for (int i = 0; i < block.count; i++) {
    const Where& other = block.threads[i].where;
    if (!same_place(other, last.where))
      fail(last.where, "divergent barrier: thread %d of the block is at the one in %s:%u", i,
           other.file_name(), other.line());
  }
  block.barrier_result = block.predicates;
  block.at_barrier = 0;
  block.predicates = 0;
  block.barrier_parity ^= 1;
  make_all_ready();
}

void forget_finished_threads() {
  for (void* thread : block.finished_tsan) tsan_destroy(thread);
  block.finished_tsan.clear();
}

void retire_threads() {
  const TsanIgnore ignore;
  // ThreadSanitizer gives a finished thread's number to a new one and then sees no race between the two:
  // numbers are kept back as long as its limit of 8128 allows.
  for (int i = 0; i < block.count; i++) block.finished_tsan.push_back(block.threads[i].tsan);
  if (block.finished_tsan.size() > 5000) forget_finished_threads();
  block.fibers.clear();
}

}  // namespace

void make_ready(int first, unsigned mask) {
  for (int i = 0; i < kWarp; i++) {
    const int lane = block.order == Order::forward ? kWarp - 1 - i : i;  // the last to be added runs first
    if ((mask >> lane & 1) == 0) continue;
    block.threads[first + lane].state = State::ready;
    block.ready[block.ready_count++] = static_cast<uint16_t>(first + lane);
  }
}

void sleep() {
  Thread& self = *block.running;
  Thread& next = take_ready();
  if (&next != &self) resume(*self.fiber, next);
}

int meet_block(bool predicate, Where where) {
  Thread& self = *block.running;
  self.where = where;
  self.state = State::at_barrier;
  block.predicates += predicate;
  // A thread that runs ahead comes to the next barrier before the last has left this one, never to the one
  // after: with two tokens in turn it does not seem synchronised with threads that are still behind.
  const char* const token = &block.barrier_token[block.barrier_parity];
  tsan_release(token);
  if (++block.at_barrier == block.count) complete_barrier(self);
  sleep();
  tsan_acquire(token);
  return block.barrier_result;
}

void rest_finished_threads() {
  block.rested_tsan.insert(block.rested_tsan.end(), block.finished_tsan.begin(), block.finished_tsan.end());
  block.finished_tsan.clear();
}

void run_block() {
  block.serial++;
  block.alive = block.count;
  block.at_barrier = 0;
  block.predicates = 0;
  block.ready_count = 0;
  reset_threads();
  make_all_ready();
  begin_shared_memory();
  resume(block.launcher, take_ready());
  block.running = nullptr;
  end_shared_memory();
  if (kThreadSanitizer) retire_threads();
}

}  // namespace cuda_on_cpu
