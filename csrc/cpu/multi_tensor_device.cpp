// The optimizers' CPU side: the constants of every tensor, then the kernels, one parallel region a launch.
#include "../multi_tensor_device.h"

#include <cmath>
#include <cstring>

#include "../formulas/adam.h"
#include "../formulas/sgd.h"
#include "../tensors.h"

namespace fused_ml {

namespace {

template <class Options>
Options options_of(const std::vector<double>& options, int64_t group) {
  Options result;
  std::memcpy(&result, options.data() + group * (sizeof(Options) / sizeof(double)), sizeof(Options));
  return result;
}

template <class Constants>
void put(const Constants& constants, MultiTensorEntry& entry) {
  static_assert(sizeof(Constants) <= sizeof(entry.constants));
  std::memcpy(entry.constants, &constants, sizeof(Constants));
}

MultiTensorArguments arguments(const Plan::Launch& launch) {
  return {launch.entries.data(), launch.first_granule.data(), static_cast<int64_t>(launch.entries.size()),
          launch.type,           launch.state_type,           nullptr};
}

// set(item, entry) puts an entry's constants.
template <class Set>
void set_constants(Plan& plan, std::vector<Plan::Launch>& launches, const Set& set) {
  for (Plan::Launch& launch : launches) {
    for (size_t n = 0; n < launch.items.size(); ++n) set(plan.items()[launch.items[n]], launch.entries[n]);
  }
}

void set_sgd(Plan& plan, std::vector<Plan::Launch>& launches, const std::vector<double>& options,
             double factor) {
  set_constants(plan, launches, [&](const Plan::Item& item, MultiTensorEntry& entry) {
    const auto o = options_of<formulas::SgdOptions>(options, item.group);
    put(formulas::sgd_constants(o, item.first, factor), entry);
  });
}

// And counts the step.
void set_adam(Plan& plan, std::vector<Plan::Launch>& launches, const std::vector<double>& options,
              double factor) {
  int64_t group = -1;
  double last_step = -1;
  formulas::AdamConstants<double> constants{};
  set_constants(plan, launches, [&](const Plan::Item& item, MultiTensorEntry& entry) {
    const double step = item.host_count() + 1;
    if (item.group != group || step != last_step) {  // as a rule all tensors are at the same step
      const auto o = options_of<formulas::AdamOptions>(options, item.group);
      constants = formulas::adam_constants(o, std::pow(o.beta1, step), std::pow(o.beta2, step), factor);
      group = item.group;
      last_step = step;
    }
    put(constants, entry);
  });
  for (Plan::Item& item : plan.items()) item.count_on_host();
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
    std::vector<Plan::Launch>& launches = plan.launches();
    call.few == MultiTensorFormula::sgd ? set_sgd(plan, launches, options, factor.factor)
                                        : set_adam(plan, launches, options, factor.factor);
    for (const Plan::Launch& launch : launches) {
      kernels().multi_tensor_update(formula_of(call.few, launch.states_count), arguments(launch));
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
