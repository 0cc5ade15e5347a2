// Every std and torch header that kernel code may see, included before an instruction-set region opens.
//
// Inside a region nothing from std may be instantiated: an inline function compiled for AVX-512 could be the
// copy that the linker keeps for the whole library.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "arguments.h"
#include "parallel.h"

// What a region holds: the kernels, or, for the raw module of the tests (csrc/raw), the bare formulas.
#ifndef FUSED_ML_REGION
#define FUSED_ML_REGION "region.h"
#endif
