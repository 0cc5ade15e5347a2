// Compiles FUSED_ML_REGION for any x86-64, or for another architecture's default.
#include "prelude.h"

#define FUSED_ML_NAMESPACE fused_ml::baseline
#define FUSED_ML_VECTOR_BYTES 16
#define FUSED_ML_ISA_NAME "baseline"
#include FUSED_ML_REGION
