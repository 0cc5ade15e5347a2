#define FUSED_ML_REGION "pointwise/kernels.h"
#include "level_avx512.h"
