// The kernels' links to torch: its current stream, and errors as torch raises them.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "operators/torch_api.h"
#include "frames/cuda/launch.cuh"

namespace fused_ml::cuda {

namespace {

const char* advice(cudaError_t error) {
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
      return "this build holds no code for this GPU; `python -m fused_ml` shows its architectures: rebuild "
             "with "
             "TORCH_CUDA_ARCH_LIST set to the GPU's";
    case cudaErrorInsufficientDriver:
      return "the driver is older than the CUDA toolkit of this build: update it, or build with an older "
             "toolkit";
    default:
      return "an earlier kernel may have failed: CUDA_LAUNCH_BLOCKING=1 shows which";
  }
}

}  // namespace

void launch_failed(const char* kernel, cudaError_t error) {
  STD_TORCH_CHECK(false, "fused_ml: CUDA kernel ", kernel, " was not launched: ", cudaGetErrorName(error),
                  ", ", cudaGetErrorString(error), " (", advice(error), ")");
}

void query_failed(cudaError_t error) {
  STD_TORCH_CHECK(false, "fused_ml: a question to the CUDA runtime failed: ", cudaGetErrorName(error), ", ",
                  cudaGetErrorString(error), " (", advice(error), ")");
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
