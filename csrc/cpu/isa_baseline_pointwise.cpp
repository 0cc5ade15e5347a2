#define FUSED_ML_REGION "pointwise_kernels.h"
#include "level_baseline.h"
