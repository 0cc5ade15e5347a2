#define FUSED_ML_REGION "rows/cross_entropy_kernels.h"
#include "level_avx2.h"
