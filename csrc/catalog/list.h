// Lists of formulas, known to the compiler alone.
#pragma once

#include "formulas/portable.h"

namespace FUSED_ML_NAMESPACE {

template <class... F>
struct List {
  static constexpr int size = sizeof...(F);
};

List<> joined();
template <class... F>
List<F...> joined(List<F...>);
template <class... F, class... G, class... More>
auto joined(List<F...>, List<G...>, More... more) -> decltype(joined(List<F..., G...>{}, more...));
template <class... Lists>
using Joined = decltype(joined(Lists{}...));

}  // namespace FUSED_ML_NAMESPACE
