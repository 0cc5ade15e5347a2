// The toolkit's cuda_fp16.h, and the fused operations that it gives to device code alone.
#pragma once

#include_next <cuda_fp16.h>

// The product of two halves is exact in double, and so is its sum with a third except where the terms lie
// more than 53 bits apart: the one rounding that counts is the last.
inline __half __hfma(__half a, __half b, __half c) {
  return __double2half(static_cast<double>(__half2float(a)) * __half2float(b) + __half2float(c));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return __halves2half2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
