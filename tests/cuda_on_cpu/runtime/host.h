// The host side of the runtime API.
#pragma once

#include <cuda_runtime_api.h>

namespace cuda_on_cpu {

// Sets what cudaGetLastError gives to the calling OS thread next, unless it is success; returns its argument.
cudaError_t record(cudaError_t error);

}  // namespace cuda_on_cpu
