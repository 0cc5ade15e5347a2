// The Python module of csrc/testing: formulas and shipped kernels on NumPy arrays, at an instruction set by
// name.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "frames/arguments.h"
#include "formulas.h"

namespace fused_ml::raw {

namespace py = pybind11;

template <class A>
using Array = py::array_t<A, py::array::c_style>;

// Of the library that open_library named. Raises where this CPU, or the library, lacks the level.
const Kernels& kernels_at(const std::string& isa);
const Formulas& formulas_at(const std::string& isa);

void define_formulas(py::module_& m);
void define_kernels(py::module_& m);

}  // namespace fused_ml::raw
