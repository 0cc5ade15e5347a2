// The pointwise catalog as a table: what the operators need to know of a formula besides its code.
#pragma once

#include <array>
#include <string_view>

#include "catalog/pointwise.h"
#include "frames/arguments.h"

namespace fused_ml {

struct PointwiseEntry {
  const char* name;
  const char* const* options;
  int options_count;
  bool contiguous;  // kContiguous: the result, whatever the input
};

template <class F>
constexpr PointwiseEntry entry_of() {
  constexpr bool contiguous = requires { F::kContiguous; };
  if constexpr (formulas::kOptionsOf<F> > 0) {
    static_assert(formulas::kOptionsOf<F> <= kPointwiseOptions);
    return {F::kName, F::kOptions, formulas::kOptionsOf<F>, contiguous};
  } else {
    return {F::kName, nullptr, 0, contiguous};
  }
}
template <class... F>
constexpr std::array<PointwiseEntry, sizeof...(F)> entries_of(formulas::List<F...>) {
  return {entry_of<F>()...};
}

constexpr auto kPointwiseEntries = entries_of(formulas::Pointwise<float>{});
constexpr int kActivations = formulas::Activations<float>::size, kLosses = formulas::Losses<float>::size;

constexpr const PointwiseEntry& entry_at(int code) { return kPointwiseEntries[code]; }

// Whose name is unknown does not compile.
consteval int code_of(std::string_view name) {
  for (size_t code = 0; code < kPointwiseEntries.size(); ++code) {
    if (kPointwiseEntries[code].name == name) return static_cast<int>(code);
  }
  throw "no formula of this name";
}

}  // namespace fused_ml
