#define FUSED_ML_REGION "pointwise_kernels.h"
#include "level_avx512.h"
