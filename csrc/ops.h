// The functions behind the operators. Schemas: ops.cpp.
#pragma once

#include "torch_api.h"

namespace fused_ml {

int64_t cpu_isa();
int64_t cpu_isas_compiled();
int64_t cpu_isas_supported();
void choose_cpu_isa(int64_t level);

// The losses and activations over classes: rowwise_ops.cpp.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> cross_entropy(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& sample_weight, const std::optional<Tensor>& normalizer,
    const std::optional<Tensor>& grad_output, int64_t reduction, int64_t ignore_index, double label_smoothing,
    double z_loss, double softcap, ScalarType loss_dtype, bool grad_input, bool grad_target, bool stats);
std::tuple<Tensor, Tensor, Tensor> cross_entropy_(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& sample_weight, const std::optional<Tensor>& normalizer, int64_t reduction,
    int64_t ignore_index, double label_smoothing, double z_loss, double softcap, ScalarType loss_dtype, bool stats);
Tensor softmax(const Tensor& input, int64_t dim, bool negate, ScalarType dtype);
Tensor softmax_backward(const Tensor& grad_output, const Tensor& output, int64_t dim, bool negate,
                        ScalarType input_dtype);
Tensor log_softmax(const Tensor& input, int64_t dim, ScalarType dtype);
Tensor log_softmax_backward(const Tensor& grad_output, const Tensor& output, int64_t dim, ScalarType input_dtype);

}  // namespace fused_ml
