// Elementary functions that a compiler can inline and vectorise: exp, log1p, log, expm1, tanh, sigmoid,
// softplus.
//
// Every function is branch-free straight-line code on one scalar of type A (float or double), so that a loop
// over it becomes vector code for whatever instruction set the surrounding region is compiled for, and the
// same text compiles for CUDA. Products are written a * b + c: contracted to FMA where the target has it,
// exact enough where it has not (the reduction constants leave trailing zeros for that).
//
// Polynomials: minimax fits (Remez, weight = relative error of the function) computed for the ranges named
// below.
#pragma once

#include "portable.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
struct Constants;

template <>
struct Constants<float> {
  using Bits = uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr uint32_t exponent_one = 127u << 23;
  static constexpr uint32_t sqrt_half = 0x3f3504f3u;  // bits of sqrt(1/2)
  static constexpr uint32_t mantissa_mask = 0x007fffffu;
  static constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float log2e = 1.44269504088896341f;
  static constexpr float ln2_hi = 0.693359375f;  // 9 significant bits: n * ln2_hi is exact for |n| < 2^15
  static constexpr float ln2_lo = -2.12194440054690583e-4f;
  static constexpr float exp_low = -87.3365402f;     // below it exp is under the smallest normal number
  static constexpr float exp_high = 88.7228394f;     // above it exp overflows
  static constexpr float exact_difference = 208.0f;  // |m| above it: x - m is exact wherever exp(x - m) > 0
  static constexpr float smallest_normal = 1.17549435e-38f;
  static constexpr float denormal_lift = 33554432.0f;  // 2^25
  static constexpr float denormal_lift_log2 = 25.0f;
  static constexpr float infinity = __builtin_huge_valf();
};

template <>
struct Constants<double> {
  using Bits = uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr uint64_t exponent_one = uint64_t{1023} << 52;
  static constexpr uint64_t sqrt_half = 0x3fe6a09e667f3bcdull;
  static constexpr uint64_t mantissa_mask = 0x000fffffffffffffull;
  static constexpr double round_magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double log2e = 1.44269504088896340736;
  static constexpr double ln2_hi = 6.93147180369123816490e-01;  // 32 trailing zero bits
  static constexpr double ln2_lo = 1.90821492927058770002e-10;
  static constexpr double exp_low = -708.396418532264;
  static constexpr double exp_high = 709.782712893384;
  static constexpr double exact_difference = 1500.0;
  static constexpr double smallest_normal = 2.2250738585072014e-308;
  static constexpr double denormal_lift = 18014398509481984.0;  // 2^54
  static constexpr double denormal_lift_log2 = 54.0;
  static constexpr double infinity = __builtin_huge_val();
};

// (exp(t) - 1 - t) / t^2 for |t| <= 0.3475; relative error of exp 3.2e-9 and 5.5e-20.
FUSED_ML_INLINE float exp_tail(
    float t) {  // Estrin's scheme: a shorter chain, so that more elements are under way
  const float square = t * t;
  const float high = 0.00138142197945f * square + (0.00836889863025f * t + 0.0416684057471f);
  return high * square + (0.166665191307f * t + 0.499999933464f);
}
FUSED_ML_INLINE double exp_tail(double t) {
  double p = 0x1.1e3c57df85093p-29;
  p = p * t + 0x1.af6d429037525p-26;
  p = p * t + 0x1.27e5b621ebcd2p-22;
  p = p * t + 0x1.71ddef5d4053dp-19;
  p = p * t + 0x1.a01a0134f2315p-16;
  p = p * t + 0x1.a01a01b3cb043p-13;
  p = p * t + 0x1.6c16c16c30cf1p-10;
  p = p * t + 0x1.111111110eb9bp-7;
  p = p * t + 0x1.5555555555501p-5;
  p = p * t + 0x1.555555555555cp-3;
  return p * t + 0.5;
}

// ln((1 + s) / (1 - s)) = 2 s + s * z * log_tail(z), z = s^2 <= 0.0295; relative error 8e-10 and 1.3e-18 of
// it.
FUSED_ML_INLINE float log_tail(float z) {
  float p = 0.298745705014f;
  p = p * z + 0.399774445949f;
  return p * z + 0.666667770859f;
}
FUSED_ML_INLINE double log_tail(double z) {
  double p = 0x1.2f169d404edd9p-3;
  p = p * z + 0x1.39a01a288f02bp-3;
  p = p * z + 0x1.74664e325110bp-3;
  p = p * z + 0x1.c71c51c33c6a8p-3;
  p = p * z + 0x1.2492494241b2ap-2;
  p = p * z + 0x1.999999997f877p-2;
  return p * z + 0x1.5555555555593p-1;
}

template <class A>
FUSED_ML_INLINE A select(bool condition, A yes, A no) {
  return condition ? yes : no;
}
template <class A>
FUSED_ML_INLINE A maximum(A a, A b) {  // of two numbers; a NaN in b is passed over
  return b > a ? b : a;
}
template <class A>
FUSED_ML_INLINE A absolute(A x) {
  return bit_cast<A>(bit_cast<typename Constants<A>::Bits>(x) & (~typename Constants<A>::Bits{0} >> 1));
}
template <class A>
FUSED_ML_INLINE A copy_sign(A magnitude, A sign) {
  using Bits = typename Constants<A>::Bits;
  constexpr Bits rest = ~Bits{0} >> 1;
  return bit_cast<A>((bit_cast<Bits>(magnitude) & rest) | (bit_cast<Bits>(sign) & ~rest));
}

// a * b + c, rounded once where the target can: of two products the compiler would choose one, in each loop
// anew, and a result's bits would depend on the loop.
template <class A>
FUSED_ML_INLINE A multiply_add(A a, A b, A c) {
#if defined(FUSED_ML_FMA) || defined(__CUDA_ARCH__)
  if constexpr (sizeof(A) == sizeof(float)) {
    return __builtin_fmaf(a, b, c);
  } else {
    return __builtin_fma(a, b, c);
  }
#else
  return a * b + c;
#endif
}

// a * b - product, exactly, for a product that was rounded: what it lost.
template <class A>
FUSED_ML_INLINE A lost_of_product(A a, A b, A product) {
#if defined(FUSED_ML_FMA) || defined(__CUDA_ARCH__)
  return multiply_add(a, b, -product);
#else  // Dekker's, of numbers of half the digits, whose products are exact
  using Bits = typename Constants<A>::Bits;
  constexpr Bits upper = ~Bits{0} << (Constants<A>::mantissa_bits / 2 + 1);
  const A high_a = bit_cast<A>(bit_cast<Bits>(a) & upper), low_a = a - high_a;
  const A high_b = bit_cast<A>(bit_cast<Bits>(b) & upper), low_b = b - high_b;
  return ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b;
#endif
}

// 2^n from round_magic + n, for a normal result.
template <class A>
FUSED_ML_INLINE A power_of_two(A magic_plus_n) {
  using K = Constants<A>;
  using Bits = typename K::Bits;
  return bit_cast<A>(static_cast<Bits>((bit_cast<Bits>(magic_plus_n) << K::mantissa_bits) + K::exponent_one));
}

// exp(x) for any x: 0 below exp_low (what would be denormal is flushed), +inf above exp_high. <= 1 ulp.
template <class A>
FUSED_ML_INLINE A exp(A x) {
  using K = Constants<A>;
  const A clamped = select(x < K::exp_low, K::exp_low, select(x > K::exp_high, K::exp_high, x));
  const A shifted = clamped * K::log2e + K::round_magic;
  const A n = shifted - K::round_magic;
  const A t = (clamped - n * K::ln2_hi) - n * K::ln2_lo;
  const A p = (exp_tail(t) * (t * t) + t) + A(1);
  // 2^128 is no float: for the last binade below overflow, 2^(n-1) twice.
  const A half = select(x > A(1), A(1), A(0));
  const A scaled = p * power_of_two(shifted - half) * (A(1) + half);
  return select(x < K::exp_low, A(0), select(x > K::exp_high, K::infinity, scaled));
}

// exp(x) - 1 for x in [-large, exp_high / 2], without cancellation near 0. <= 2 ulp.
template <class A>
FUSED_ML_INLINE A expm1(A x) {
  using K = Constants<A>;
  const A clamped = select(x < A(-40), A(-40), x);
  const A shifted = clamped * K::log2e + K::round_magic;
  const A n = shifted - K::round_magic;
  const A t = (clamped - n * K::ln2_hi) - n * K::ln2_lo;
  const A scale = power_of_two(shifted);
  return (exp_tail(t) * (t * t) + t) * scale + (scale - A(1));
}

FUSED_ML_INLINE uint32_t sign_extend(uint32_t bits) {  // of a 9-bit number
  return static_cast<uint32_t>(static_cast<int32_t>(bits << 23) >> 23);
}
FUSED_ML_INLINE uint64_t
sign_extend(uint64_t bits) {  // of a 12-bit number; AVX2 has no arithmetic 64-bit shift
  return (bits ^ 0x800u) - 0x800u;
}

// log(w) + correction / w for w > 0 normal: the common part of log and log1p.
template <class A>
FUSED_ML_INLINE A log_normal(A w, A correction) {
  using K = Constants<A>;
  using Bits = typename K::Bits;
  // w = 2^n * mantissa, mantissa in [sqrt(1/2), sqrt(2)).
  const Bits offset = bit_cast<Bits>(w) - K::sqrt_half;
  const Bits n_bits = static_cast<Bits>(offset >> K::mantissa_bits);  // modulo 2^(sign and exponent bits)
  const A mantissa = bit_cast<A>(static_cast<Bits>((offset & K::mantissa_mask) + K::sqrt_half));
  const A n =
      bit_cast<A>(static_cast<Bits>(bit_cast<Bits>(K::round_magic) + sign_extend(n_bits))) - K::round_magic;
  const Bits exponent_two = K::exponent_one + (Bits{1} << K::mantissa_bits);
  const A twice_inverse =  // 2^(1 - n): 2^-n of the largest w is no normal number
      bit_cast<A>(static_cast<Bits>(bit_cast<Bits>(mantissa) + exponent_two - bit_cast<Bits>(w)));
  const A f = (mantissa - A(1)) + (A(0.5) * correction) * twice_inverse;
  const A s = f / (f + A(2));
  const A z = s * s;
  const A half_square = A(0.5) * f * f;
  const A tail = z * log_tail(z);
  return n * K::ln2_hi + (f - (half_square - (s * (half_square + tail) + n * K::ln2_lo)));
}

// log(x) for any x: NaN below 0, -inf at 0. <= 1 ulp.
template <class A>
FUSED_ML_INLINE A log(A x) {
  using K = Constants<A>;
  const bool tiny = x < K::smallest_normal;
  const A lifted = select(tiny, x * K::denormal_lift, x);
  const A usual =
      log_normal(lifted, A(0)) - select(tiny, K::denormal_lift_log2 * A(0.693147180559945309), A(0));
  const A special = select(x == A(0), -K::infinity, select(x < A(0), -(K::infinity - K::infinity), x));
  return select((x > A(0)) & (x < K::infinity), usual, special);
}

// log(1 + u) for any u: exact to the last bits for small u. <= 1 ulp.
template <class A>
FUSED_ML_INLINE A log1p(A u) {
  using K = Constants<A>;
  const A w = A(1) + u;
  // 1 + u rounds; what it lost is u - (w - 1), or 1 - (w - u) where u is the larger.
  const A lost = select(u > A(1), A(1) - (w - u), u - (w - A(1)));
  const A usual = log_normal(w, lost);
  const A special = select(u == A(-1), -K::infinity, select(u < A(-1), -(K::infinity - K::infinity), u));
  return select((u > A(-1)) & (u < K::infinity), usual, special);
}

// log(1 + u + rest) for finite u >= 0, or NaN: without the guards. |rest| is under an ulp of u.
template <class A>
FUSED_ML_INLINE A log1p_nonnegative(A u, A rest = A(0)) {
  const A w = A(1) + u;
  return log_normal(w, select(u > A(1), A(1) - (w - u), u - (w - A(1))) + rest);
}

// exp(x + rest...) 2^kMore for x <= 0: without the guards of the other side. A rest is under an ulp of x.
template <int kMore = 0, class A, class... Rest>
FUSED_ML_INLINE A exp_nonpositive(A x, Rest... rest) {
  using K = Constants<A>;
  const A shifted = x * K::log2e + K::round_magic;
  const A n = shifted - K::round_magic;
  const A t = (((x - n * K::ln2_hi) - n * K::ln2_lo) + ... + rest);
  const A p = (exp_tail(t) * (t * t) + t) + A(1);
  constexpr A low = K::exp_low - A(kMore) * A(0.6931471805599453);
  // Whatever came out below it.
  return select(x < low, A(0), p * power_of_two(kMore ? shifted + A(kMore) : shifted));
}

// log(1 + u) for u in [0, 1], <= 1.43 ulp: one range for all, since where two were told apart by conditional
// factors gcc computed both; and for floats no division, which takes longer than the polynomial.
//   float: u - u^2 / 2 + u^3 p(u), relative error 7.5e-9
FUSED_ML_INLINE float log1p_of_fraction(float u) {
  const float square = u * u;
  const float high =
      (0.0218761302981f - 0.00367763680259f * u) * square + (0.11025238653f - 0.060922682335f * u);
  const float low = (0.197743387598f - 0.155695914372f * u) * square + (0.33332250675f - 0.249751002301f * u);
  const float p = high * (square * square) + low;
  return u - (0.5f * square - (square * u) * p);
}
//   double: ln((1 + s) / (1 - s)), s = u / (2 + u), as above for s^2 <= 1/9; relative error 1.3e-18
FUSED_ML_INLINE double log1p_of_fraction(double u) {
  const double s = u / (u + 2.0), z = s * s;
  double p = 0x1.5c5c2ec3e70b8p-3;
  p = p * z + 0x1.55cf4761e4e83p-4;
  p = p * z + 0x1.efd1924ed1198p-4;
  p = p * z + 0x1.10682e709207fp-3;
  p = p * z + 0x1.3b1dd3b6b706fp-3;
  p = p * z + 0x1.745cb4591db61p-3;
  p = p * z + 0x1.c71c741a0bbafp-3;
  p = p * z + 0x1.2492492091054p-2;
  p = p * z + 0x1.99999999a06c3p-2;
  p = p * z + 0x1.5555555555535p-1;
  const double half_square = 0.5 * u * u;
  return u - (half_square - s * (half_square + z * p));
}

// tanh(x) = (exp(2|x|) - 1) / (exp(2|x|) + 1), with x's sign.
template <class A>
FUSED_ML_INLINE A tanh(A x) {
  const A y = absolute(x);
  const A e = expm1(A(2) * select(y > A(20), A(20), y));
  return copy_sign(e / (e + A(2)), x);
}

// 1 / (1 + exp(-x)), without overflow and without loss in either tail.
template <class A>
FUSED_ML_INLINE A sigmoid(A x) {
  const A e = exp_nonpositive(-absolute(x));
  return select(x < A(0), e, A(1)) / (A(1) + e);
}

}  // namespace FUSED_ML_NAMESPACE
