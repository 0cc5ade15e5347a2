// The kernels' links to torch: its current stream, and errors as torch raises them.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "../torch_api.h"
#include "launch.cuh"

namespace fused_ml::cuda {

void launch_failed(const char* kernel, cudaError_t error) {
  const char* hint = error == cudaErrorNoKernelImageForDevice
                         ? "this build holds no code for this GPU: see the architectures in `python -m "
                           "fused_ml`, and rebuild "
                           "with TORCH_CUDA_ARCH_LIST set to the GPU's"
                     : error == cudaErrorInsufficientDriver
                         ? "the driver is older than the CUDA toolkit of this build: see docs/building.md"
                         : "if an earlier kernel failed, CUDA_LAUNCH_BLOCKING=1 shows which";
  STD_TORCH_CHECK(false, "fused_ml: CUDA kernel ", kernel, " was not launched: ", cudaGetErrorName(error),
                  ", ", cudaGetErrorString(error), " (", hint, ")");
}

void query_failed(cudaError_t error) {
  STD_TORCH_CHECK(false, "fused_ml: CUDA device query failed: ", cudaGetErrorName(error), ", ",
                  cudaGetErrorString(error));
}

cudaStream_t current_stream(int device) {
#ifdef FUSED_ML_EMULATED
  (void)device;
  return nullptr;
#else
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
#endif
}

}  // namespace fused_ml::cuda
