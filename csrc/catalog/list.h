// Lists of formulas, known to the compiler alone.
#pragma once

#include "../formulas/portable.h"

namespace FUSED_ML_NAMESPACE {

template <class... F>
struct List {
  static constexpr int size = sizeof...(F);
};

template <class... F, class... G>
List<F..., G...> joined(List<F...>, List<G...>);
template <class First, class Second>
using Joined = decltype(joined(First{}, Second{}));

}  // namespace FUSED_ML_NAMESPACE
