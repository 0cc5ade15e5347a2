// Every operator of fused_ml: its schema, and the function that carries it out on the CPU. Read this first.
#include "ops.h"

STABLE_TORCH_LIBRARY(fused_ml, m) {
  // Which instruction set the CPU kernels use: 0 baseline, 1 avx2, 2 avx512.
  m.def("cpu_isa() -> int");
  m.def("cpu_isas_compiled() -> int");
  m.def("cpu_isas_supported() -> int");
  m.def("choose_cpu_isa(int level) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fused_ml, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&fused_ml::cpu_isa));
  m.impl("cpu_isas_compiled", TORCH_BOX(&fused_ml::cpu_isas_compiled));
  m.impl("cpu_isas_supported", TORCH_BOX(&fused_ml::cpu_isas_supported));
  m.impl("choose_cpu_isa", TORCH_BOX(&fused_ml::choose_cpu_isa));
}
