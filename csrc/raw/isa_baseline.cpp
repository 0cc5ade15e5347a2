#define FUSED_ML_REGION "../raw/region.h"
#include "../cpu/level_baseline.h"
