#define FUSED_ML_REGION "pointwise/kernels.h"
#include "level_baseline.h"
