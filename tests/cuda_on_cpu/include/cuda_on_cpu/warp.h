// Barriers, shuffles, votes and warp reductions.
#pragma once

#include <concepts>
#include <cstring>
#include <type_traits>

#include "engine.h"

#define CUDA_ON_CPU_HERE cuda_on_cpu::Where where = cuda_on_cpu::Where::current()

inline void __syncthreads(CUDA_ON_CPU_HERE) { cuda_on_cpu::meet_block(false, where); }
inline int __syncthreads_count(int predicate, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::meet_block(predicate != 0, where);
}
inline int __syncthreads_or(int predicate, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::meet_block(predicate != 0, where) != 0;
}
inline int __syncthreads_and(int predicate, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::meet_block(predicate == 0, where) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_ON_CPU_HERE) {
  cuda_on_cpu::meet_warp(cuda_on_cpu::Exchange::sync, mask, 0, 0, where);
}

namespace cuda_on_cpu {

template <class T>
uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8),
                "a shuffle moves 2, 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// The lanes [begin, end) among which a shuffle of this width moves values.
struct Segment {
  int lane, begin, end;
  Segment(int width, Where where) : lane(cuda_on_cpu::lane()) {
    if (width < 1 || width > 32 || (width & (width - 1)) != 0)
      fail(where, "a shuffle's width must be a power of two up to 32, not %d", width);
    begin = lane & ~(width - 1);
    end = begin + width;
  }
};

template <class T>
T shuffle(unsigned mask, T value, int source, Where where) {
  return from_bits<T>(meet_warp(Exchange::shuffle, mask, to_bits(value), source, where));
}

}  // namespace cuda_on_cpu

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_ON_CPU_HERE) {
  const cuda_on_cpu::Segment segment(width, where);
  return cuda_on_cpu::shuffle(mask, value, segment.begin | (source & (width - 1)), where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_HERE) {
  const cuda_on_cpu::Segment segment(width, where);
  const int source = segment.lane - static_cast<int>(delta);
  return cuda_on_cpu::shuffle(mask, value, source >= segment.begin ? source : segment.lane, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_HERE) {
  const cuda_on_cpu::Segment segment(width, where);
  const int source = segment.lane + static_cast<int>(delta);
  return cuda_on_cpu::shuffle(mask, value, source < segment.end ? source : segment.lane, where);
}
// A lane of a later segment cannot be read, one of an earlier segment can.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUDA_ON_CPU_HERE) {
  const cuda_on_cpu::Segment segment(width, where);
  const int source = (segment.lane ^ bits) & 31;
  return cuda_on_cpu::shuffle(mask, value, source < segment.end ? source : segment.lane, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_CPU_HERE) {
  return static_cast<unsigned>(
      cuda_on_cpu::meet_warp(cuda_on_cpu::Exchange::ballot, mask, predicate != 0, 0, where));
}
inline int __any_sync(unsigned mask, int predicate, CUDA_ON_CPU_HERE) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_ON_CPU_HERE) {
  return __ballot_sync(mask, predicate == 0, where) == 0;
}
inline unsigned __activemask(CUDA_ON_CPU_HERE) {
  cuda_on_cpu::fail(where,
                    "__activemask depends on how a GPU schedules lanes: pass the mask that the code means");
}

template <class T>
unsigned __match_any_sync(unsigned mask, T value, CUDA_ON_CPU_HERE) {
  return static_cast<unsigned>(
      cuda_on_cpu::meet_warp(cuda_on_cpu::Exchange::match_any, mask, cuda_on_cpu::to_bits(value), 0, where));
}

namespace cuda_on_cpu {

template <class T>
concept Integer32 = std::same_as<T, int> || std::same_as<T, unsigned>;

template <Integer32 T>
T reduce(Exchange exchange, unsigned mask, T value, Where where) {
  return static_cast<T>(meet_warp(exchange, mask, static_cast<unsigned>(value), 0, where));
}

}  // namespace cuda_on_cpu

template <cuda_on_cpu::Integer32 T>
T __reduce_add_sync(unsigned mask, T value, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::reduce(cuda_on_cpu::Exchange::add, mask, value, where);
}
template <cuda_on_cpu::Integer32 T>
T __reduce_min_sync(unsigned mask, T value, CUDA_ON_CPU_HERE) {
  using enum cuda_on_cpu::Exchange;
  return cuda_on_cpu::reduce(std::is_signed_v<T> ? min_signed : min_unsigned, mask, value, where);
}
template <cuda_on_cpu::Integer32 T>
T __reduce_max_sync(unsigned mask, T value, CUDA_ON_CPU_HERE) {
  using enum cuda_on_cpu::Exchange;
  return cuda_on_cpu::reduce(std::is_signed_v<T> ? max_signed : max_unsigned, mask, value, where);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::reduce(cuda_on_cpu::Exchange::bit_and, mask, value, where);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::reduce(cuda_on_cpu::Exchange::bit_or, mask, value, where);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, CUDA_ON_CPU_HERE) {
  return cuda_on_cpu::reduce(cuda_on_cpu::Exchange::bit_xor, mask, value, where);
}
