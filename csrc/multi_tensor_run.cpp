// A plan's step: the constants of every tensor, then the kernels, one parallel region a launch.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "formulas/adam.h"
#include "formulas/sgd.h"
#include "multi_tensor_plan.h"

namespace fused_ml {

namespace {

// A group's options, of which there must be one set for every group that the plan names.
template <class Options>
Options options_of(const std::vector<double>& options, int64_t group) {
  constexpr int64_t count = sizeof(Options) / sizeof(double);
  STD_TORCH_CHECK(group >= 0 && (group + 1) * count <= static_cast<int64_t>(options.size()), "expected ",
                  count, " options for each group, ", group + 1, " groups at least; got ", options.size(),
                  " numbers");
  Options result;
  std::memcpy(&result, options.data() + group * count, sizeof(Options));
  return result;
}

template <class Constants>
void put(const Constants& constants, MultiTensorEntry& entry) {
  static_assert(sizeof(Constants) <= sizeof(entry.constants));
  std::memcpy(entry.constants, &constants, sizeof(Constants));
}

}  // namespace

MultiTensorArguments Plan::Launch::arguments() const {
  return {entries.data(), first_granule.data(), static_cast<int64_t>(entries.size()),
          type,           state_type,           nullptr};
}

void Plan::fill(Launch& launch) const {
  STD_TORCH_CHECK(grads_.size() == items_.size(), "the plan has no gradients: bind them before every run");
  for (size_t n = 0; n < launch.items.size(); ++n) {
    const Item& item = items_[launch.items[n]];
    MultiTensorEntry& entry = launch.entries[n];
    std::copy(std::begin(item.operands), std::end(item.operands), entry.operands);
    entry.numel = item.numel;
    entry.layout = item.layout.get();
  }
}

double Plan::square_sum() {
  double sum = 0;
  std::vector<double> block_sums;
  for (Launch& launch : launches_) {
    fill(launch);
    MultiTensorArguments arguments = launch.arguments();
    const int64_t granules = launch.first_granule.back();
    block_sums.assign((granules + kMultiTensorBlock - 1) / kMultiTensorBlock, 0);
    arguments.block_sums = block_sums.data();
    kernels().multi_tensor_square_sum(arguments);
    for (double block : block_sums) sum += block;
  }
  return sum;
}

// prepare(item, entry) computes an entry's constants and raises before anything is written.
template <class Prepare>
void Plan::prepare_launches(const Prepare& prepare) {
  for (Launch& launch : launches_) {
    fill(launch);
    for (size_t n = 0; n < launch.items.size(); ++n) prepare(items_[launch.items[n]], launch.entries[n]);
  }
}

void Plan::run_launches(MultiTensorFormula few, MultiTensorFormula more, int most_states) {
  for (const Launch& launch : launches_) {
    kernels().multi_tensor_update(launch.states_count == most_states ? more : few, launch.arguments());
  }
  grads_.clear();
}

void Plan::run_sgd(const std::vector<double>& options, double gradient_factor) {
  prepare_launches([&](const Item& item, MultiTensorEntry& entry) {
    STD_TORCH_CHECK(item.states_count <= 1, "SGD has one state at most; got ", item.states_count);
    put(formulas::sgd_constants(options_of<formulas::SgdOptions>(options, item.group), item.first,
                                gradient_factor),
        entry);
  });
  run_launches(MultiTensorFormula::sgd, MultiTensorFormula::sgd_momentum, 1);
  for (Item& item : items_) item.first = false;
}

void Plan::run_adam(const std::vector<double>& options, double gradient_factor) {
  int64_t group = -1;
  double last_step = -1;
  formulas::AdamConstants<double> constants{};
  prepare_launches([&](const Item& item, MultiTensorEntry& entry) {
    STD_TORCH_CHECK(item.step && (item.states_count == 2 || item.states_count == 3),
                    "Adam has a step count and 2 states, or 3 with AMSGrad; got ", item.states_count);
    const double step = 1 + (item.double_step ? *static_cast<const double*>(item.step_data)
                                              : *static_cast<const float*>(item.step_data));
    if (item.group != group || step != last_step) {  // as a rule all tensors are at the same step
      const auto o = options_of<formulas::AdamOptions>(options, item.group);
      constants =
          formulas::adam_constants(o, std::pow(o.beta1, step), std::pow(o.beta2, step), gradient_factor);
      group = item.group;
      last_step = step;
    }
    put(constants, entry);
  });
  for (const Item& item : items_) {
    if (item.double_step) {
      *static_cast<double*>(item.step_data) += 1;
    } else {
      *static_cast<float*>(item.step_data) += 1;
    }
  }
  run_launches(MultiTensorFormula::adam, MultiTensorFormula::adam_amsgrad, 3);
}

}  // namespace fused_ml
