#define FUSED_ML_REGION "pointwise/kernels.h"
#include "level_avx2.h"
