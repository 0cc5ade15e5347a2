#define FUSED_ML_REGION "softmax_kernels.h"
#include "level_avx2.h"
