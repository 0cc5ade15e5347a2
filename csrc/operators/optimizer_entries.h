// The optimizers' catalog as tables: what the operators need to know of a family besides its code.
#pragma once

#include <array>

#include "catalog/optimizers.h"
#include "frames/arguments.h"

namespace fused_ml {

struct FamilyEntry {
  const char* name;
  int options;          // numbers for each group
  bool counts;          // each parameter has a step count
  int update, updates;  // the code of its first update, and how many it has
};

template <class Options>
constexpr int kNumbers = sizeof(Options) / sizeof(double);

template <class... F>
constexpr std::array<FamilyEntry, sizeof...(F)> families_of(formulas::List<F...>) {
  int next = 0;
  const auto entry = [&]<class Options>(const Options*, int updates) {
    const FamilyEntry result{Options::kName, kNumbers<Options>, Options::kCounts, next, updates};
    next += updates;
    return result;
  };
  return {entry(static_cast<const typename F::Options*>(nullptr), F::Updates::size)...};
}
template <class... U>
constexpr std::array<unsigned, sizeof...(U)> states_of(formulas::List<U...>) {
  return {U::states...};
}

constexpr auto kFamilies = families_of(formulas::Families<float>{});
constexpr auto kUpdateStates = states_of(formulas::Updates<float>{});

// The code of a family's update for parameters that have these states; -1: there is none.
constexpr int update_of(int family, unsigned states) {
  const FamilyEntry& entry = kFamilies[family];
  for (int code = entry.update; code < entry.update + entry.updates; ++code) {
    if (kUpdateStates[code] == states) return code;
  }
  return -1;
}

}  // namespace fused_ml
