// The optimizers' operators: over lists of tensors, and over a plan kept from step to step.
#include <mutex>
#include <unordered_map>

#include "formulas/adam.h"
#include "formulas/sgd.h"
#include "multi_tensor_device.h"
#include "ops.h"
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
  const bool sgd = call.few == MultiTensorFormula::sgd;
  plan.check(call.few, call.options,
             (sgd ? sizeof(formulas::SgdOptions) : sizeof(formulas::AdamOptions)) / sizeof(double));
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

void expect_length(const char* name, const std::vector<Tensor>& list, size_t expected, bool may_be_empty) {
  STD_TORCH_CHECK(list.size() == expected || (may_be_empty && list.empty()), name, ": expected ", expected,
                  " tensors, one for each parameter; got ", list.size());
}

double factor_in(const std::optional<Tensor>& factor) {
  if (!factor) return 1;
  STD_TORCH_CHECK(factor->is_cpu() && factor->numel() == 1,
                  "gradient_factor: expected one number on the CPU");
  return number_in(*factor);
}

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

std::vector<Tensor> sgd_run(int64_t plan, std::vector<double> options, std::optional<Tensor> grad_scale,
                            std::optional<Tensor> found_inf, std::optional<Tensor> square_sum,
                            double max_norm, std::optional<std::vector<Tensor>> numbers,
                            std::optional<std::vector<int64_t>> places) {
  return check_and_run(
      *find(plan),
      {MultiTensorFormula::sgd, std::move(options), std::move(numbers).value_or(std::vector<Tensor>{}),
       std::move(places).value_or(std::vector<int64_t>{}), 1, std::move(grad_scale), std::move(found_inf),
       std::move(square_sum), max_norm});
}

std::vector<Tensor> adam_run(int64_t plan, std::vector<double> options, std::optional<Tensor> grad_scale,
                             std::optional<Tensor> found_inf, std::optional<Tensor> square_sum,
                             double max_norm, std::optional<std::vector<Tensor>> numbers,
                             std::optional<std::vector<int64_t>> places) {
  return check_and_run(
      *find(plan),
      {MultiTensorFormula::adam, std::move(options), std::move(numbers).value_or(std::vector<Tensor>{}),
       std::move(places).value_or(std::vector<int64_t>{}), 1, std::move(grad_scale), std::move(found_inf),
       std::move(square_sum), max_norm});
}

void sgd_(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> momentum_buffers,
          std::vector<double> options, bool first, std::optional<Tensor> gradient_factor) {
  const size_t count = params.size();
  if (count == 0) return;
  expect_length("momentum_buffers", momentum_buffers, count, true);
  const std::vector<int64_t> states_of(count, momentum_buffers.empty() ? 0 : 1);
  Plan plan(params[0], std::move(momentum_buffers), {}, std::vector<int64_t>(count, 0), states_of,
            std::vector<int64_t>(count, first ? kFirst : 0));
  bind_or_raise(plan, params, std::move(grads));
  check_and_run(plan, {MultiTensorFormula::sgd, std::move(options), {}, {}, factor_in(gradient_factor)});
}

void adam_(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> exp_avgs,
           std::vector<Tensor> exp_avg_sqs, std::vector<Tensor> max_exp_avg_sqs,
           std::vector<Tensor> state_steps, std::vector<double> options,
           std::optional<Tensor> gradient_factor) {
  const size_t count = params.size();
  if (count == 0) return;
  expect_length("exp_avgs", exp_avgs, count, false);
  expect_length("exp_avg_sqs", exp_avg_sqs, count, false);
  expect_length("max_exp_avg_sqs", max_exp_avg_sqs, count, true);
  expect_length("state_steps", state_steps, count, false);
  std::vector<Tensor> states;
  for (size_t i = 0; i < count; ++i) {
    states.push_back(exp_avgs[i]);
    states.push_back(exp_avg_sqs[i]);
    if (!max_exp_avg_sqs.empty()) states.push_back(max_exp_avg_sqs[i]);
  }
  const std::vector<int64_t> zeros(count, 0), states_of(count, max_exp_avg_sqs.empty() ? 2 : 3);
  std::vector<int64_t> flags(count, 0);
  for (size_t i = 0; i < count; ++i) flags[i] = lies_on_device_of(state_steps[i], params[i]) ? 0 : kHostStep;
  Plan plan(params[0], std::move(states), std::move(state_steps), zeros, states_of, flags);
  bind_or_raise(plan, params, std::move(grads));
  check_and_run(plan, {MultiTensorFormula::adam, std::move(options), {}, {}, factor_in(gradient_factor)});
}

}  // namespace fused_ml
