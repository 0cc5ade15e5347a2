// Compiles FUSED_ML_REGION for AVX2 with FMA.
#include "prelude.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,prfchw")
#define FUSED_ML_NAMESPACE fused_ml::avx2
#define FUSED_ML_FMA
#define FUSED_ML_F16C  // conversions of halves; the pragma does not define __F16C__
#define FUSED_ML_VECTOR_BYTES 32
#define FUSED_ML_ISA_NAME "avx2"
#include FUSED_ML_REGION
#pragma GCC pop_options
