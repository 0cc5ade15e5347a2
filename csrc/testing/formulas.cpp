#include "module.h"
#include "sweep.h"

namespace fused_ml::raw {

namespace {

Loop<float> loop_of(const Formula& formula, float) { return formula.float32; }
Loop<double> loop_of(const Formula& formula, double) { return formula.float64; }
TermsLoop<float> terms_of(const Formulas& formulas, float) { return formulas.terms_float32; }
TermsLoop<double> terms_of(const Formulas& formulas, double) { return formulas.terms_float64; }

template <class A>
void define_formula(py::module_& m, int formula) {
  m.def(
      baseline::formulas.unary[formula].name,
      [formula](const Array<A>& x, const std::string& isa) {
        Array<A> y(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
        loop_of(formulas_at(isa).unary[formula], A())(x.data(), y.mutable_data(), x.size());
        return y;
      },
      py::arg("x").noconvert(), py::kw_only(), py::arg("isa"));
}

template <class A>
void define_terms(py::module_& m) {
  m.def(
      "exp_below",
      [](const Array<A>& x, double peak, const std::string& isa) {
        Array<A> value(x.size() + 1), rest(x.size() + 1);
        terms_of(formulas_at(isa), A())(static_cast<A>(peak), x.data(), value.mutable_data(),
                                        rest.mutable_data(), x.size());
        return py::make_tuple(value, rest);
      },
      "The terms of x below `peak`, and behind them the peak's own: value and rest, [n + 1] each.",
      py::arg("x").noconvert(), py::arg("peak"), py::kw_only(), py::arg("isa"));
}

py::tuple sweep_named(const std::string& name, uint64_t first, uint64_t last, uint64_t stride, bool flushed,
                      int threads, const std::string& isa) {
  if (last > uint64_t{1} << 32 || stride == 0 || threads < 1) {
    throw py::value_error("sweep: expected last <= 2**32, stride >= 1 and threads >= 1");
  }
  for (const Formula& formula : formulas_at(isa).unary) {
    if (name != formula.name) continue;
    Worst worst;
    {
      py::gil_scoped_release release;
      worst = sweep(formula, first, last, stride, flushed, threads);
    }
    return py::make_tuple(worst.ulps, worst.bits);
  }
  throw py::value_error("sweep: no formula " + name);
}

}  // namespace

void define_formulas(py::module_& m) {
  for (int formula = 0; formula < kFormulas; ++formula) {
    define_formula<float>(m, formula);
    define_formula<double>(m, formula);
  }
  define_terms<float>(m);
  define_terms<double>(m);
  m.def("sweep", sweep_named,
        "The largest error over float32 bit patterns, in ulps against float64, and the pattern where it is.",
        py::arg("name"), py::kw_only(), py::arg("first") = 0, py::arg("last") = uint64_t{1} << 32,
        py::arg("stride") = 1, py::arg("flushed") = false, py::arg("threads") = 2, py::arg("isa"));
}

}  // namespace fused_ml::raw
