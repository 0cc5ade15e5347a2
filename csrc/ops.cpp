// Every operator of fused_ml: its schema, and the function that carries it out on the CPU. Read this first.
#include "ops.h"

STABLE_TORCH_LIBRARY(fused_ml, m) {
  // Which instruction set the CPU kernels use: 0 baseline, 1 avx2, 2 avx512.
  m.def("cpu_isa() -> int");
  m.def("cpu_isas_compiled() -> int");
  m.def("cpu_isas_supported() -> int");
  m.def("choose_cpu_isa(int level) -> ()");

  // Classes along `dim`, or along dimension 1 (0 of an unbatched input). reduction: 0 none, 1 mean, 2 sum.
  // -> loss, input's gradient, target's gradient, log-sum-exp, predicted class; what is not asked for is empty.
  // The gradients are those of the loss, or with grad_output [rows] of the unreduced losses weighed by it.
  m.def(
      "cross_entropy(Tensor input, Tensor target, Tensor? weight, Tensor? sample_weight, Tensor? normalizer, "
      "Tensor? grad_output, int reduction, int ignore_index, float label_smoothing, float z_loss, float softcap, "
      "ScalarType loss_dtype, bool grad_input, bool grad_target, bool stats) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // The same for class targets, with the gradient written over the input. -> loss, log-sum-exp, predicted class
  m.def(
      "cross_entropy_(Tensor(a!) input, Tensor target, Tensor? weight, Tensor? sample_weight, Tensor? normalizer, "
      "int reduction, int ignore_index, float label_smoothing, float z_loss, float softcap, ScalarType loss_dtype, "
      "bool stats) -> (Tensor, Tensor, Tensor)");
  m.def("softmax(Tensor input, int dim, bool negate, ScalarType dtype) -> Tensor");
  m.def("softmax_backward(Tensor grad_output, Tensor output, int dim, bool negate, ScalarType input_dtype) -> Tensor");
  m.def("log_softmax(Tensor input, int dim, ScalarType dtype) -> Tensor");
  m.def("log_softmax_backward(Tensor grad_output, Tensor output, int dim, ScalarType input_dtype) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(fused_ml, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&fused_ml::cpu_isa));
  m.impl("cpu_isas_compiled", TORCH_BOX(&fused_ml::cpu_isas_compiled));
  m.impl("cpu_isas_supported", TORCH_BOX(&fused_ml::cpu_isas_supported));
  m.impl("choose_cpu_isa", TORCH_BOX(&fused_ml::choose_cpu_isa));
}

STABLE_TORCH_LIBRARY_IMPL(fused_ml, CPU, m) {
  m.impl("cross_entropy", TORCH_BOX(&fused_ml::cross_entropy));
  m.impl("cross_entropy_", TORCH_BOX(&fused_ml::cross_entropy_));
  m.impl("softmax", TORCH_BOX(&fused_ml::softmax));
  m.impl("softmax_backward", TORCH_BOX(&fused_ml::softmax_backward));
  m.impl("log_softmax", TORCH_BOX(&fused_ml::log_softmax));
  m.impl("log_softmax_backward", TORCH_BOX(&fused_ml::log_softmax_backward));
}
