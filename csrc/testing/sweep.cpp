#include "sweep.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

namespace fused_ml {

namespace {

constexpr int64_t kBlock = 2048;

// 1 + x is exact in float64 unless x, a float32, is tiny; then the series is.
double log1p_reference(double x) { return std::fabs(x) < 0x1p-29 ? x - 0.5 * x * x : std::log(1 + x); }
double normal_cdf_reference(double x) { return 0.5 * std::erfc(-x * 0.70710678118654752440); }
double sigmoid_reference(double x) { return 1 / (1 + std::exp(-x)); }

using Reference = double (*)(double);
Reference reference_of(const char* formula) {
  static const struct {
    const char* name;
    Reference function;
  } references[kFormulas] = {
      {"exp", std::exp},
      {"log", std::log},
      {"log1p", log1p_reference},
      {"expm1", std::expm1},
      {"tanh", std::tanh},
      {"sigmoid", sigmoid_reference},
      {"exp_nonpositive", std::exp},
      {"log1p_of_fraction", log1p_reference},
      {"normal_cdf", normal_cdf_reference},
  };
  for (const auto& reference : references) {
    if (!std::strcmp(reference.name, formula)) return reference.function;
  }
  return nullptr;
}

// |got - expected| in ulps of float32 at `expected`, whose denormals are all as far apart as the least.
double error_in_ulps(float got, double expected, bool flushed) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  if (std::isnan(expected)) return std::isnan(got) ? 0 : inf;
  const float rounded = static_cast<float>(expected);
  if (std::isinf(rounded)) return got == rounded ? 0 : inf;
  if (!std::isfinite(got)) return inf;
  if (flushed && got == 0 && std::fabs(expected) < FLT_MIN) return 0;
  const int exponent = static_cast<int>(std::bit_cast<uint64_t>(expected) >> 52 & 0x7ff) - 1023;
  const uint64_t ulp_exponent = std::max(exponent, FLT_MIN_EXP - 1) - (FLT_MANT_DIG - 1);
  return std::fabs(got - expected) * std::bit_cast<double>((1023 - ulp_exponent) << 52);
}

Worst sweep_part(const Formula& formula, uint64_t first, uint64_t last, uint64_t stride, bool flushed) {
  const Reference reference = reference_of(formula.name);
  float x[kBlock], y[kBlock];
  Worst worst;
  for (uint64_t start = first; start < last; start += kBlock * stride) {
    const int64_t n = std::min<uint64_t>(kBlock, (last - start + stride - 1) / stride);
    for (int64_t i = 0; i < n; ++i) x[i] = std::bit_cast<float>(static_cast<uint32_t>(start + i * stride));
    formula.float32(x, y, n);
    for (int64_t i = 0; i < n; ++i) {
      const double ulps = error_in_ulps(y[i], reference(x[i]), flushed);
      if (ulps > worst.ulps) worst = {ulps, std::bit_cast<uint32_t>(x[i])};
    }
  }
  return worst;
}

}  // namespace

Worst sweep(const Formula& formula, uint64_t first, uint64_t last, uint64_t stride, bool flushed,
            int threads) {
  // Small parts dealt out in turn: the patterns that cost most lie together.
  constexpr uint64_t kPart = uint64_t{1} << 20;
  const uint64_t length = kPart * stride;
  std::vector<Worst> found(threads);
  std::vector<std::thread> workers;
  for (int worker = 0; worker < threads; ++worker) {
    workers.emplace_back([&, worker] {
      for (uint64_t start = first + worker * length; start < last; start += threads * length) {
        const Worst worst = sweep_part(formula, start, std::min(last, start + length), stride, flushed);
        if (worst.ulps > found[worker].ulps) found[worker] = worst;
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  return *std::max_element(found.begin(), found.end(),
                           [](const Worst& a, const Worst& b) { return a.ulps < b.ulps; });
}

}  // namespace fused_ml
