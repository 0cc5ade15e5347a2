// The kernels of the catalog's losses.
#include "catalog/pointwise.h"
#include "launch.cuh"

namespace fused_ml::cuda {

int64_t launch_loss(int index, const double* options, const PointwiseTask& task, cudaStream_t stream) {
  return run_any<formulas::AllLosses>(index, options, task, stream);
}

}  // namespace fused_ml::cuda
