#define FUSED_ML_REGION "multi_tensor/kernels.h"
#include "level_avx512.h"
