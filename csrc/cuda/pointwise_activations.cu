// The kernels of the catalog's activations.
#include "../catalog/pointwise.h"
#include "pointwise_launch.cuh"

namespace fused_ml::cuda {

int64_t launch_activation(int index, const double* options, const PointwiseTask& task, cudaStream_t stream) {
  return task.a.x.type == DType::float64
             ? run_in<double>(index, options, task, stream, formulas::Activations<double>{})
             : run_in<float>(index, options, task, stream, formulas::Activations<float>{});
}

}  // namespace fused_ml::cuda
