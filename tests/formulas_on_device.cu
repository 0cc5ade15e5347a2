// Instantiates every formula in a kernel, so that nvcc compiles each for a device. Compiled only, never run.
#include "catalog/optimizers.h"
#include "catalog/pointwise.h"
#include "formulas/normal.h"
#include "formulas/row_blocks.h"
#include "formulas/rows/softmax.h"

namespace fm = FUSED_ML_NAMESPACE;

template <class A, class F>
__device__ A rowwise(const F& f, A x, A y) {
  const auto reference = F::Reference::make(f.logit(f.key(x)));
  fm::RowSums<A> sums{x, fm::parts(f.term(reference, x, y, x > y)).value, y, x, y, x, y, x, y};
  const fm::RowResult<A> r = f.finish(sums);
  const fm::RowCoefficients<A> c{r.lse, r.scale, r.offset, r.log_total};
  A out = r.loss + f.map(x, y, y, x, c);
  if constexpr (F::kOwn != fm::Own::none) out += f.map_own(x, r.own);
  if constexpr (F::kSide) out += f.weigh(x, y);
  if constexpr (F::kSecond) out += f.map_second(x, y, y, c);
  return out;
}

template <class A, class... F>
__device__ A pointwise(A x, A y, fm::List<F...>) {
  const fm::PointwiseInputs<A> in{x, y, x, y, x};
  A sum = 0;
  const auto add = [&](const auto& f) {
    const auto r = fm::evaluate(f, in, fm::prepared(f, x));
    sum += r.value + r.dx + r.dt;
  };
  const A options[] = {x, y, x, y};
  (add(fm::with_options<F>(options)), ...);
  return sum;
}

template <class Options>
__device__ double constants(double x) {
  Options options;
  for (int i = 0; i < static_cast<int>(sizeof(options) / sizeof(double)); ++i)
    reinterpret_cast<double*>(&options)[i] = x;
  return fm::constants_of(options, {x, x > 1}, x).gradient_factor;
}

template <class A, class... F, class... U>
__device__ A optimizers(A x, A y, fm::List<F...>, fm::List<U...>) {
  A sum = 0, s0 = x, s1 = y, s2 = x;
  ((sum += static_cast<A>(constants<typename F::Options>(x))), ...);
  const auto step = [&](const auto& update) { update(sum, y, s0, s1, s2); };
  (step(typename U::Formula{}), ...);
  return sum + s0 + s1 + s2;
}

template <class A>
__global__ void formulas(A* data) {
  const A x = data[0], y = data[1];
  const fm::CrossEntropyOptions<A> o{x, y, x, y};
  data[2] = rowwise(fm::CrossEntropyPlain<A>{o}, x, y) + rowwise(fm::CrossEntropyClass<A>{o}, x, y) +
            rowwise(fm::CrossEntropyDistribution<A>{{o}}, x, y) + rowwise(fm::Softmax<A>{x}, x, y) +
            rowwise(fm::LogSoftmax<A>{}, x, y) + rowwise(fm::SoftmaxBackward<A>{x}, x, y) +
            rowwise(fm::LogSoftmaxBackward<A>{{x}}, x, y);
  data[3] = pointwise(x, y, fm::Pointwise<A>{}) + fm::log(x) + fm::sigmoid(y) + fm::normal_cdf(x);
  data[4] = optimizers(x, y, fm::Families<A>{}, fm::Updates<A>{});
}

template __global__ void formulas(float*);
template __global__ void formulas(double*);
