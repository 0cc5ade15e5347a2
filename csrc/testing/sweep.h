// The largest error of a formula over bit patterns of float32, against float64.
#pragma once

#include "formulas.h"

namespace fused_ml {

struct Worst {
  double ulps = 0;  // of float32; infinite where a NaN, an infinity or a zero is out of place
  uint32_t bits = 0;
};

// The formula at every stride-th pattern of [first, last), against its namesake of the C library.
// flushed: results under the smallest normal number may be 0.
Worst sweep(const Formula& formula, uint64_t first, uint64_t last, uint64_t stride, bool flushed,
            int threads);

}  // namespace fused_ml
