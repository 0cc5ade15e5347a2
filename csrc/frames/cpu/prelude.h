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

#include "frames/arguments.h"
#include "parallel.h"
