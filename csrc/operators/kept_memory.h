// Memory of large results on the CPU, kept for the next one.
//
// Fresh memory has to be zeroed by the system before a kernel can write it, page by page, which takes longer
// than most kernels here. A training step frees what the step before allocated: where such a result is freed,
// its memory is kept, and the pages are offered back to the system, which takes them only when it runs short
// of memory (MADV_FREE). The next result of about that size gets it.
#pragma once

#include "torch_api.h"

namespace fused_ml {

// Smaller results are left to the allocator, which keeps their memory itself.
constexpr size_t kLargeResult = size_t{4} << 20;

// A dense tensor on the CPU of at least kLargeResult bytes, of any content.
Tensor large_tensor(const int64_t* sizes, const int64_t* strides, int64_t dim, int32_t type_code,
                    int32_t device_index, size_t bytes);

// Frees what is kept; returns how many bytes that was.
int64_t empty_cache();

}  // namespace fused_ml
