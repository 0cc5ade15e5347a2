// The pointwise formulas there are. A row of Activations or Losses is an operator on either device, its
// schema, kernels and registration included (operators/pointwise.cpp); what stands under
// LossesWithOwnOperators has one written by hand.
//
// A formula's code is its place in Pointwise, and never leaves a build.
#pragma once

#include "formulas/activations/gelu.h"
#include "formulas/activations/logsigmoid.h"
#include "formulas/losses/binary_cross_entropy.h"
#include "formulas/losses/huber_loss.h"
#include "list.h"

namespace FUSED_ML_NAMESPACE {

template <class A>
using Activations = List<  //
    Gelu<A>, GeluTanh<A>, LogSigmoid<A>>;

template <class A>
using Losses = List<  //
    HuberLoss<A>>;

template <class A>
using LossesWithOwnOperators = List<  //
    BinaryCrossEntropy<A>, FocalBinaryCrossEntropy<A>>;

template <class A>
using AllLosses = Joined<Losses<A>, LossesWithOwnOperators<A>>;

template <class A>
using Pointwise = Joined<Activations<A>, AllLosses<A>>;

}  // namespace FUSED_ML_NAMESPACE
