// The optimizers' operators: over lists of tensors, and over a plan kept from step to step.
#include <mutex>
#include <unordered_map>

#include "multi_tensor_plan.h"
#include "ops.h"

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
      " cannot be stepped: expected parameter, gradient and states of one shape, strided, on the CPU, in "
      "one floating-point type (or float32 states beside 16-bit parameters), parameter and states without "
      "overlap in themselves, and a float step count (problem ",
      result % 16, ")");
}

void expect_length(const char* name, const std::vector<Tensor>& list, size_t expected, bool may_be_empty) {
  STD_TORCH_CHECK(list.size() == expected || (may_be_empty && list.empty()), name, ": expected ", expected,
                  " tensors, one for each parameter; got ", list.size());
}

}  // namespace

int64_t multi_tensor_plan(std::vector<Tensor> states, std::vector<Tensor> steps, std::vector<int64_t> groups,
                          std::vector<int64_t> states_of, std::vector<int64_t> first) {
  auto plan = std::make_shared<Plan>(std::move(states), std::move(steps), groups, states_of, first);
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

bool multi_tensor_bind_in_place(int64_t plan, std::vector<int64_t> addresses, std::vector<Tensor> grads) {
  return find(plan)->bind_in_place(addresses, std::move(grads));
}

double multi_tensor_square_sum(int64_t plan) { return find(plan)->square_sum(); }

void sgd_run(int64_t plan, std::vector<double> options, double gradient_factor) {
  find(plan)->run_sgd(options, gradient_factor);
}

void adam_run(int64_t plan, std::vector<double> options, double gradient_factor) {
  find(plan)->run_adam(options, gradient_factor);
}

void sgd_(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> momentum_buffers,
          std::vector<double> options, bool first, double gradient_factor) {
  const size_t count = params.size();
  expect_length("momentum_buffers", momentum_buffers, count, true);
  const std::vector<int64_t> states_of(count, momentum_buffers.empty() ? 0 : 1);
  Plan plan(std::move(momentum_buffers), {}, std::vector<int64_t>(count, 0), states_of,
            std::vector<int64_t>(count, first));
  bind_or_raise(plan, params, std::move(grads));
  plan.run_sgd(options, gradient_factor);
}

void adam_(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> exp_avgs,
           std::vector<Tensor> exp_avg_sqs, std::vector<Tensor> max_exp_avg_sqs,
           std::vector<Tensor> state_steps, std::vector<double> options, double gradient_factor) {
  const size_t count = params.size();
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
  const std::vector<int64_t> zeros(count, 0);
  Plan plan(std::move(states), std::move(state_steps), zeros,
            std::vector<int64_t>(count, max_exp_avg_sqs.empty() ? 2 : 3), zeros);
  bind_or_raise(plan, params, std::move(grads));
  plan.run_adam(options, gradient_factor);
}

}  // namespace fused_ml
