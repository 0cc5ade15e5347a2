// The optimizers' CPU side: the constants of every tensor, then the kernels, one parallel region a launch.
#include "operators/optimizer_step.h"

#include <cstring>

#include "operators/optimizer_entries.h"
#include "operators/tensors.h"

namespace fused_ml {

namespace {

MultiTensorArguments arguments(const Plan::Launch& launch) {
  return {launch.entries.data(), launch.first_granule.data(), static_cast<int64_t>(launch.entries.size()),
          launch.type,           launch.state_type,           nullptr};
}

// Puts the constants of every entry. As a rule all tensors of a group are at the same step.
template <class Options>
void set_constants(Plan& plan, const std::vector<double>& options, double factor) {
  decltype(formulas::constants_of(Options{}, formulas::Progress{}, factor)) constants{};
  static_assert(sizeof(constants) <= sizeof(MultiTensorEntry::constants));
  const Plan::Item* last = nullptr;
  double last_step = 0;
  for (Plan::Launch& launch : plan.launches()) {
    for (size_t n = 0; n < launch.items.size(); ++n) {
      const Plan::Item& item = plan.items()[launch.items[n]];
      const double step = item.step ? item.host_count() + 1 : 1;
      if (!last || item.group != last->group || item.first != last->first || step != last_step) {
        Options o;
        std::memcpy(&o, options.data() + item.group * kNumbers<Options>, sizeof(o));
        constants = formulas::constants_of(o, {step, item.first}, factor);
        last = &item;
        last_step = step;
      }
      std::memcpy(launch.entries[n].constants, &constants, sizeof(constants));
    }
  }
}

template <class... F>
void set_constants_of(int family, Plan& plan, const std::vector<double>& options, double factor,
                      formulas::List<F...>) {
  static constexpr decltype(&set_constants<formulas::AdamOptions>) set[] = {
      &set_constants<typename F::Options>...};
  set[family](plan, options, factor);
}

formulas::GradientFactor factor_of(const StepCall& call) {
  formulas::GradientScaling scaling{
      call.gradient_factor, call.found_inf.has_value(), 0, call.square_sum.has_value(), 0, call.max_norm};
  if (call.grad_scale) scaling.factor /= number_in(*call.grad_scale);
  if (call.found_inf) scaling.found_inf = number_in(*call.found_inf);
  if (call.square_sum) scaling.square_sum = number_in(*call.square_sum);
  return formulas::gradient_factor(scaling);
}

}  // namespace

bool lies_on_device_of(const Tensor& tensor, const Tensor&) { return tensor.is_cpu(); }

Tensor square_sum(Plan& plan) {
  double sum = 0;
  std::vector<double> block_sums;
  for (Plan::Launch& launch : plan.launches()) {
    MultiTensorArguments a = arguments(launch);
    const int64_t granules = launch.first_granule.back();
    block_sums.assign((granules + kMultiTensorBlock - 1) / kMultiTensorBlock, 0);
    a.block_sums = block_sums.data();
    kernels().multi_tensor_square_sum(a);
    for (double block : block_sums) sum += block;
  }
  return new_number(plan.like(), sum, ScalarType::Double);
}

std::vector<Tensor> run_step(Plan& plan, const StepCall& call) {
  std::vector<double> options = call.options;
  for (size_t i = 0; i < call.places.size(); ++i) options[call.places[i]] = number_in(call.numbers[i]);
  const formulas::GradientFactor factor = factor_of(call);
  if (!factor.skipped) {
    set_constants_of(call.family, plan, options, factor.factor, formulas::Families<double>{});
    for (const Plan::Launch& launch : plan.launches()) {
      kernels().multi_tensor_update(update_of(call.family, launch.states), arguments(launch));
    }
    for (Plan::Item& item : plan.items()) {
      if (item.step) item.count_on_host();
    }
  }
  plan.finish(factor.skipped);
  if (!call.square_sum) return {};
  bool wide = false;
  for (const Plan::Item& item : plan.items()) wide |= item.scalar_type == ScalarType::Double;
  return {new_number(plan.like(), factor.norm, wide ? ScalarType::Double : ScalarType::Float),
          new_number(plan.like(), factor.skipped, ScalarType::Float)};
}

}  // namespace fused_ml
