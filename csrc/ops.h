// The functions behind the operators. Schemas: ops.cpp.
#pragma once

#include "torch_api.h"

namespace fused_ml {

int64_t cpu_isa();
int64_t cpu_isas_compiled();
int64_t cpu_isas_supported();
void choose_cpu_isa(int64_t level);

}  // namespace fused_ml
