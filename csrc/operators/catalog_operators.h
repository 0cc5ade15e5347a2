// The operators that follow from the catalog, for a library to define and to register on its device.
#pragma once

#include <string>
#include <vector>

#include "torch_api.h"

namespace fused_ml {

struct CatalogOperator {
  std::string name, schema;  // schema: from the arguments on
  void (*run)(StableIValue* stack, uint64_t arguments, uint64_t results);
};

std::vector<CatalogOperator> pointwise_operators();
std::vector<CatalogOperator> optimizer_list_operators();  // <family>_
std::vector<CatalogOperator>
optimizer_plan_operators();  // <family>_run, registered as all operators of plans

}  // namespace fused_ml
