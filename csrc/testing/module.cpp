// Which instruction sets there are, by the library's word: it holds the kernels, and it asks the CPU.
#include "module.h"

#include <dlfcn.h>

namespace fused_ml::raw {

namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};
#if defined(__x86_64__)
const Formulas* const kFormulaTables[] = {&baseline::formulas, &avx2::formulas, &avx512::formulas};
#else
const Formulas* const kFormulaTables[] = {&baseline::formulas, nullptr, nullptr};
#endif

const Kernels* (*kernels_of_level)(int) = nullptr;

// The library as the process has it already: never a second copy.
void open_library(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOLOAD | RTLD_LAZY);
  if (!library) throw py::import_error(path + " is not loaded: import fused_ml before this module");
  void* symbol = dlsym(library, "fused_ml_kernels");
  if (!symbol) throw py::import_error(path + " has no symbol fused_ml_kernels: build the library anew");
  kernels_of_level = reinterpret_cast<const Kernels* (*)(int)>(symbol);
}

int level_of(const std::string& isa) {
  for (int level = 0; level < static_cast<int>(InstructionSet::count); ++level) {
    if (isa == kNames[level]) return level;
  }
  throw py::value_error("instruction set '" + isa + "': expected 'baseline', 'avx2' or 'avx512'");
}

}  // namespace

const Kernels& kernels_at(const std::string& isa) {
  const Kernels* kernels = kernels_of_level ? kernels_of_level(level_of(isa)) : nullptr;
  if (!kernels) throw py::value_error("this CPU or this library lacks the instruction set " + isa);
  return *kernels;
}

const Formulas& formulas_at(const std::string& isa) {
  kernels_at(isa);
  return *kFormulaTables[level_of(isa)];
}

}  // namespace fused_ml::raw

PYBIND11_MODULE(_raw, m) {
  using namespace fused_ml::raw;
  m.def("open_library", open_library);
  m.def("compiled_for",
        [](const std::string& isa) { return py::make_tuple(formulas_at(isa).isa, kernels_at(isa).name); });
  define_formulas(m);
  define_kernels(m);
}
