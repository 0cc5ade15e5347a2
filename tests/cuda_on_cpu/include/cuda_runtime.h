// Stands in front of the toolkit's cuda_runtime.h when a .cu file is compiled by g++ to run on the CPU.
// Types, enumerations and prototypes are the toolkit's own; README.md lists what is modelled.
#pragma once

#if defined(__CUDACC__)
#error "this header is for g++; nvcc must find the toolkit's own cuda_runtime.h"
#endif

#include <cassert>
#include <cfloat>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <math.h>

#include <cuda_runtime_api.h>
#include <library_types.h>
#include <vector_functions.h>

#define __launch_bounds__(...)
// Nothing, not an attribute: the C++ library's own headers say __attribute__((__noinline__)).
#undef __noinline__
#define __noinline__
#undef __shared__
#define __shared__ \
  static_assert(false, "declare shared memory with FUSED_ML_SHARED or FUSED_ML_DYNAMIC_SHARED");

#include "cuda_on_cpu/engine.h"
#include "cuda_on_cpu/launch.h"
#include "cuda_on_cpu/shared.h"
#include "cuda_on_cpu/warp.h"
#include "cuda_on_cpu/atomics.h"
#include "cuda_on_cpu/access.h"
#include "cuda_on_cpu/scalar.h"
