// The optimizers' formulas there are. A family is two operators on either device, over a plan and over lists
// (operators/optimizer_step.cpp); which of its updates a parameter takes is told by the states that it has,
// by bit, in Python's order.
//
// An update's code is its place in Updates, and never leaves a build.
#pragma once

#include "formulas/optimizers/adam.h"
#include "formulas/optimizers/rmsprop.h"
#include "formulas/optimizers/sgd.h"
#include "list.h"

namespace FUSED_ML_NAMESPACE {

template <unsigned kStates, class F>
struct Update {
  static constexpr unsigned states = kStates;
  using Formula = F;
  static_assert(__builtin_popcount(kStates) == F::states);
};

template <class FamilyOptions, class... U>
struct Family {
  using Options = FamilyOptions;
  using Updates = List<U...>;
};

template <class A>
using Families = List<  //
    Family<SgdOptions, Update<0b0, Sgd<A>>, Update<0b1, SgdMomentum<A>>>,
    Family<AdamOptions, Update<0b011, Adam<A>>, Update<0b111, AdamAmsgrad<A>>>,
    Family<RmspropOptions, Update<0b001, Rmsprop<A, false, false>>, Update<0b011, Rmsprop<A, true, false>>,
           Update<0b101, Rmsprop<A, false, true>>, Update<0b111, Rmsprop<A, true, true>>>>;

template <class... F>
Joined<typename F::Updates...> updates_of(List<F...>);
template <class A>
using Updates = decltype(updates_of(Families<A>{}));

}  // namespace FUSED_ML_NAMESPACE
