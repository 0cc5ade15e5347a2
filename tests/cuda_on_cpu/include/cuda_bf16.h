// The toolkit's cuda_bf16.h, and the fused operations that it gives to device code alone.
#pragma once

#include <cuda_fp16.h>
#include_next <cuda_bf16.h>

// Rounded in double and then once more; a sum that double cannot hold exactly has terms so far apart that the
// smaller one could only break a tie.
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __double2bfloat16(static_cast<double>(__bfloat162float(a)) * __bfloat162float(b) +
                           __bfloat162float(c));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return __halves2bfloat162(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
