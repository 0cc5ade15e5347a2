// Every operator of fused_ml: its schema, and the function that carries it out on the CPU. Read this first.
#include "functions.h"

#include "device_operators.h"
#include "kept_memory.h"
#include "plan_operators.h"

STABLE_TORCH_LIBRARY(fused_ml, m) {
  // Which instruction set the CPU kernels use: 0 baseline, 1 avx2, 2 avx512.
  m.def("cpu_isa() -> int");
  m.def("cpu_isas_compiled() -> int");
  m.def("cpu_isas_supported() -> int");
  m.def("choose_cpu_isa(int level) -> ()");
  m.def("empty_cache() -> int");  // memory kept for large results; -> bytes

  // What most calls leave out comes last, with torch's defaults: an argument that is passed costs 0.1 us.

  // Classes along `dim`, or along dimension 1 (0 of an unbatched input). reduction: 0 none, 1 mean, 2 sum.
  // loss_dtype: the input's if not given. -> of loss, input's gradient, target's gradient, log-sum-exp and
  // predicted class those asked for, in this order. The gradients are those of the loss, times grad_output
  // where it is given: [rows] for the unreduced losses, [] for their mean or sum.
  m.def(
      "cross_entropy(Tensor input, Tensor target, int reduction, int ignore_index, bool grad_input, bool "
      "stats=False, ScalarType? loss_dtype=None, Tensor? weight=None, float label_smoothing=0., float "
      "z_loss=0., float softcap=0., Tensor? sample_weight=None, Tensor? normalizer=None, bool "
      "grad_target=False, Tensor? grad_output=None) -> Tensor[]");
  // The same for class targets, with the gradient written over the input. -> loss, log-sum-exp, predicted
  // class; without stats the last two are empty (torch takes no Tensor[] from an operator that writes an
  // input)
  m.def(
      "cross_entropy_(Tensor(a!) input, Tensor target, int reduction, int ignore_index, bool stats=False, "
      "ScalarType? loss_dtype=None, Tensor? weight=None, float label_smoothing=0., float z_loss=0., float "
      "softcap=0., Tensor? sample_weight=None, Tensor? normalizer=None, Tensor? grad_output=None) -> "
      "(Tensor, "
      "Tensor, Tensor)");
  m.def("softmax(Tensor input, int dim, bool negate, ScalarType dtype) -> Tensor");
  m.def(
      "softmax_backward(Tensor grad_output, Tensor output, int dim, bool negate, ScalarType input_dtype) -> "
      "Tensor");
  m.def("log_softmax(Tensor input, int dim, ScalarType dtype) -> Tensor");
  m.def("log_softmax_backward(Tensor grad_output, Tensor output, int dim, ScalarType input_dtype) -> Tensor");
  // -> loss, what mean divided by (1 for sum)
  m.def(
      "nll_loss(Tensor input, Tensor target, Tensor? weight, int reduction, int ignore_index) -> (Tensor, "
      "Tensor)");
  // grad_output [rows], or one number with the total_weight it is divided by.
  m.def(
      "nll_loss_backward(Tensor grad_output, Tensor input, Tensor target, Tensor? weight, int ignore_index, "
      "Tensor? total_weight) -> Tensor");

  // Operands expanded to the input's shape. focal_alpha < 0: none; ignore_index NaN: none; normalizer: mean's
  // denominator, if not the number of elements; grad_output: of the loss's shape. -> those asked for of loss,
  // input's gradient, target's gradient
  m.def(
      "binary_cross_entropy_with_logits(Tensor input, Tensor target, Tensor? weight, Tensor? pos_weight, "
      "Tensor? normalizer, Tensor? grad_output, int reduction, ScalarType loss_dtype, bool loss, bool "
      "grad_input, "
      "bool grad_target, float focal_gamma, float focal_alpha, float label_smoothing, float ignore_index) -> "
      "Tensor[]");
  // Every other pointwise operator: catalog/pointwise.h, and operators/pointwise.cpp for its arguments.
  for (const auto& each : fused_ml::pointwise_operators()) m.def((each.name + each.schema).c_str());
  // tensor *= factor, a number that is not read here; nothing is touched where it is 1. CUDA alone: on the
  // CPU Python looks at the number.
  m.def("scale_(Tensor(a!) tensor, Tensor factor) -> ()");

  // One optimizer step over lists of tensors, of every family of catalog/optimizers.h. states: those of
  // parameter 0, then those of 1 ...; states_of: which of the family's they are, by bit; state_steps: one a
  // parameter where the family counts; options, as float64, in the order of the family's struct. The gradient
  // is multiplied by gradient_factor, a number on the CPU, before all else; first: the states are new, and
  // zero.
  for (const auto& each : fused_ml::optimizer_list_operators()) m.def((each.name + each.schema).c_str());
  // The same for eager use, where unpacking lists of states would take longer than the step: a plan holds the
  // states, and each step binds the parameters and gradients to it.
  fused_ml::define_plan_operators(m);
}

STABLE_TORCH_LIBRARY_IMPL(fused_ml, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&fused_ml::cpu_isa));
  m.impl("cpu_isas_compiled", TORCH_BOX(&fused_ml::cpu_isas_compiled));
  m.impl("cpu_isas_supported", TORCH_BOX(&fused_ml::cpu_isas_supported));
  m.impl("choose_cpu_isa", TORCH_BOX(&fused_ml::choose_cpu_isa));
  m.impl("empty_cache", TORCH_BOX(&fused_ml::empty_cache));
  fused_ml::implement_plan_operators(m);
}

STABLE_TORCH_LIBRARY_IMPL(fused_ml, CPU, m) { fused_ml::implement_device_operators(m); }
