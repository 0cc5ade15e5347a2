// The optimizers' operators: over lists of tensors, and over a plan kept from step to step.
#include <algorithm>
#include <mutex>
#include <string>
#include <unordered_map>

#include "catalog_operators.h"
#include "optimizer_step.h"
#include "functions.h"
#include "optimizer_entries.h"
#include "tensors.h"

namespace fused_ml {

namespace {

// Plans by number. Never destroyed: at exit torch may be gone before the tensors.
struct Registry {
  std::mutex mutex;
  std::unordered_map<int64_t, std::shared_ptr<Plan>> plans;
  int64_t last = 0;
};

Registry& registry() {
  static Registry* const registry = new Registry;
  return *registry;
}

std::shared_ptr<Plan> find(int64_t number) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  const auto found = registry().plans.find(number);
  STD_TORCH_CHECK(found != registry().plans.end(), "there is no multi_tensor plan ", number);
  return found->second;
}

void bind_or_raise(Plan& plan, const std::vector<Tensor>& params, std::vector<Tensor> grads) {
  const int64_t result = plan.bind(params, std::move(grads));
  STD_TORCH_CHECK(
      result == 0, "tensors at index ", result / 16,
      " cannot be stepped: expected parameter, gradient and states of one shape, strided, on one device, in "
      "one floating-point type (or float32 states beside 16-bit parameters), parameter and states without "
      "overlap in themselves, and a float step count (problem ",
      result % 16, ")");
}

// Raises, before anything is written, unless the call fits the plan.
std::vector<Tensor> check_and_run(Plan& plan, StepCall call) {
  const FamilyEntry& family = kFamilies[call.family];
  for (const Plan::Launch& launch : plan.launches()) {
    STD_TORCH_CHECK(update_of(call.family, launch.states) >= 0, family.name,
                    " has no update of parameters with the states ", launch.states,
                    ", by bit: see csrc/catalog/optimizers.h");
  }
  STD_TORCH_CHECK(plan.counted() || !family.counts, family.name,
                  ": expected a step count for each parameter");
  STD_TORCH_CHECK(static_cast<int64_t>(call.options.size()) >= plan.groups() * family.options, "expected ",
                  family.options, " options for each group, ", plan.groups(), " groups at least; got ",
                  call.options.size(), " numbers");
  STD_TORCH_CHECK(call.numbers.size() == call.places.size(), "places: expected one for each of ",
                  call.numbers.size(), " numbers; got ", call.places.size());
  const auto check_number = [&](const char* name, const Tensor& number) {
    STD_TORCH_CHECK(number.numel() == 1, name, ": expected one number, got ", number.numel());
    STD_TORCH_CHECK(lies_on_device_of(number, plan.like()), name, ": expected on the parameters' device");
  };
  for (size_t i = 0; i < call.numbers.size(); ++i) {
    check_number("numbers", call.numbers[i]);
    STD_TORCH_CHECK(call.places[i] >= 0 && call.places[i] < static_cast<int64_t>(call.options.size()),
                    "places: ", call.places[i], " is none of ", call.options.size(), " options");
  }
  if (call.grad_scale) check_number("grad_scale", *call.grad_scale);
  if (call.found_inf) check_number("found_inf", *call.found_inf);
  if (call.square_sum) check_number("square_sum", *call.square_sum);
  return run_step(plan, call);
}

double factor_in(const std::optional<Tensor>& factor) {
  if (!factor) return 1;
  STD_TORCH_CHECK(factor->is_cpu() && factor->numel() == 1,
                  "gradient_factor: expected one number on the CPU");
  return number_in(*factor);
}

// One step of a family: of a plan, and of lists of tensors.
template <int kFamily>
struct OptimizerOperator {
  static std::vector<Tensor> run(int64_t plan, std::vector<double> options, std::optional<Tensor> grad_scale,
                                 std::optional<Tensor> found_inf, std::optional<Tensor> square_sum,
                                 double max_norm, std::optional<std::vector<Tensor>> numbers,
                                 std::optional<std::vector<int64_t>> places) {
    return check_and_run(*find(plan),
                         {kFamily, std::move(options), std::move(numbers).value_or(std::vector<Tensor>{}),
                          std::move(places).value_or(std::vector<int64_t>{}), 1, std::move(grad_scale),
                          std::move(found_inf), std::move(square_sum), max_norm});
  }

  static void run_lists(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> states,
                        std::vector<Tensor> state_steps, int64_t states_of, std::vector<double> options,
                        bool first, std::optional<Tensor> gradient_factor) {
    const size_t count = params.size();
    if (count == 0) return;
    STD_TORCH_CHECK(states.size() == count * __builtin_popcountll(states_of), "states: expected ",
                    __builtin_popcountll(states_of), " for each of ", count, " parameters; got ",
                    states.size());
    std::vector<int64_t> flags(count, first ? kFirst : 0);
    for (size_t i = 0; i < std::min(count, state_steps.size()); ++i) {
      if (!lies_on_device_of(state_steps[i], params[i])) flags[i] |= kHostStep;
    }
    Plan plan(params[0], std::move(states), std::move(state_steps), std::vector<int64_t>(count, 0),
              std::vector<int64_t>(count, states_of), flags);
    bind_or_raise(plan, params, std::move(grads));
    check_and_run(plan, {kFamily, std::move(options), {}, {}, factor_in(gradient_factor)});
  }
};

template <int... kFamily>
std::vector<CatalogOperator> plan_operators_of(std::integer_sequence<int, kFamily...>) {
  const char* const schema =
      "(int plan, float[] options, Tensor? grad_scale=None, Tensor? found_inf=None, Tensor? square_sum=None, "
      "float max_norm=0., Tensor[]? numbers=None, int[]? places=None) -> Tensor[]";
  return {{std::string(kFamilies[kFamily].name) + "_run", schema,
           TORCH_BOX(&OptimizerOperator<kFamily>::run)}...};
}
template <int... kFamily>
std::vector<CatalogOperator> list_operators_of(std::integer_sequence<int, kFamily...>) {
  const char* const schema =
      "(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] states, Tensor(c!)[] state_steps, int states_of, "
      "float[] options, bool first=False, Tensor? gradient_factor=None) -> ()";
  return {{std::string(kFamilies[kFamily].name) + "_", schema,
           TORCH_BOX(&OptimizerOperator<kFamily>::run_lists)}...};
}
using AllFamilies = std::make_integer_sequence<int, static_cast<int>(kFamilies.size())>;

}  // namespace

int64_t multi_tensor_plan(const Tensor& like, std::vector<Tensor> states, std::vector<Tensor> steps,
                          std::vector<int64_t> groups, std::vector<int64_t> states_of,
                          std::vector<int64_t> flags) {
  auto plan = std::make_shared<Plan>(like, std::move(states), std::move(steps), groups, states_of, flags);
  const std::lock_guard<std::mutex> lock(registry().mutex);
  registry().plans.emplace(++registry().last, std::move(plan));
  return registry().last;
}

void multi_tensor_free(int64_t plan) {
  std::shared_ptr<Plan> last_reference;  // destroyed after the lock is let go
  const std::lock_guard<std::mutex> lock(registry().mutex);
  const auto found = registry().plans.find(plan);
  if (found == registry().plans.end()) return;
  last_reference = std::move(found->second);
  registry().plans.erase(found);
}

int64_t multi_tensor_bind(int64_t plan, std::vector<Tensor> params, std::vector<Tensor> grads) {
  return find(plan)->bind(params, std::move(grads));
}

bool multi_tensor_rebind(int64_t plan, const Tensor& views) {
  const bool bytes = views.is_cpu() && views.is_contiguous() && views.scalar_type() == ScalarType::Byte;
  STD_TORCH_CHECK(bytes && views.numel() % (2 * sizeof(TensorView)) == 0,
                  "views: expected the bytes of TensorViews on the CPU, two for each parameter; got ",
                  views.numel(), " elements");
  return find(plan)->rebind(static_cast<const TensorView*>(views.data_ptr()),
                            views.numel() / (2 * sizeof(TensorView)));
}

Tensor multi_tensor_square_sum(int64_t plan) { return square_sum(*find(plan)); }

std::vector<CatalogOperator> optimizer_plan_operators() { return plan_operators_of(AllFamilies()); }
std::vector<CatalogOperator> optimizer_list_operators() { return list_operators_of(AllFamilies()); }

}  // namespace fused_ml
