#define FUSED_ML_REGION "rows/softmax_kernels.h"
#include "level_avx2.h"
