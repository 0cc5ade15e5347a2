// The operators of a plan. Each library has them in a namespace of its own, where no tensor chooses among
// devices: a gradient may turn out to be anything, and it is the plan that says what is wrong with it.
// Contracts: operators/plan.h, operators/optimizer_step.h.
#pragma once

#include "catalog_operators.h"
#include "functions.h"

namespace fused_ml {

template <class Library>
void define_plan_operators(Library& m) {
  m.def(
      "multi_tensor_plan(Tensor like, Tensor[] states, Tensor[] steps, int[] groups, int[] states_of, "
      "int[] flags) -> int");
  m.def("multi_tensor_free(int plan) -> ()");
  m.def("multi_tensor_bind(int plan, Tensor[] params, Tensor[] grads) -> int");
  m.def("multi_tensor_rebind(int plan, Tensor views) -> bool");
  m.def("multi_tensor_square_sum(int plan) -> Tensor");
  for (const CatalogOperator& each : optimizer_plan_operators()) m.def((each.name + each.schema).c_str());
}

// For the key CompositeExplicitAutograd.
template <class Library>
void implement_plan_operators(Library& m) {
  m.impl("multi_tensor_plan", TORCH_BOX(&multi_tensor_plan));
  m.impl("multi_tensor_free", TORCH_BOX(&multi_tensor_free));
  m.impl("multi_tensor_bind", TORCH_BOX(&multi_tensor_bind));
  m.impl("multi_tensor_rebind", TORCH_BOX(&multi_tensor_rebind));
  m.impl("multi_tensor_square_sum", TORCH_BOX(&multi_tensor_square_sum));
  for (const CatalogOperator& each : optimizer_plan_operators()) m.impl(each.name.c_str(), each.run);
}

}  // namespace fused_ml
