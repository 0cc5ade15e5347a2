#define FUSED_ML_REGION "pointwise_kernels.h"
#include "level_avx2.h"
