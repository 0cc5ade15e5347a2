#define FUSED_ML_REGION "testing/region.h"
#include "frames/cpu/level_avx2.h"
