// Compiles FUSED_ML_REGION for AVX-512 (F, BW, DQ, VL), with full-width vectors.
#include "prelude.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2,prfchw,prefer-vector-width=512")
#define FUSED_ML_NAMESPACE fused_ml::avx512
#define FUSED_ML_FMA
#define FUSED_ML_F16C  // conversions of halves; the pragma does not define __F16C__
#define FUSED_ML_VECTOR_BYTES 64
#define FUSED_ML_ISA_NAME "avx512"
#include FUSED_ML_REGION
#pragma GCC pop_options
