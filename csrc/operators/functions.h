// The functions behind the operators. Schemas: schemas.cpp.
#pragma once

#include "torch_api.h"

namespace fused_ml {

int64_t cpu_isa();
int64_t cpu_isas_compiled();
int64_t cpu_isas_supported();
void choose_cpu_isa(int64_t level);

// The losses and activations over classes: operators/rows.cpp.
std::vector<Tensor> cross_entropy(const Tensor& input, const Tensor& target, int64_t reduction,
                                  int64_t ignore_index, bool grad_input, bool stats,
                                  std::optional<ScalarType> loss_dtype, const std::optional<Tensor>& weight,
                                  double label_smoothing, double z_loss, double softcap,
                                  const std::optional<Tensor>& sample_weight,
                                  const std::optional<Tensor>& normalizer, bool grad_target,
                                  const std::optional<Tensor>& grad_output);
std::tuple<Tensor, Tensor, Tensor> cross_entropy_(
    const Tensor& input, const Tensor& target, int64_t reduction, int64_t ignore_index, bool stats,
    std::optional<ScalarType> loss_dtype, const std::optional<Tensor>& weight, double label_smoothing,
    double z_loss, double softcap, const std::optional<Tensor>& sample_weight,
    const std::optional<Tensor>& normalizer, const std::optional<Tensor>& grad_output);
Tensor softmax(const Tensor& input, int64_t dim, bool negate, ScalarType dtype);
Tensor softmax_backward(const Tensor& grad_output, const Tensor& output, int64_t dim, bool negate,
                        ScalarType input_dtype);
Tensor log_softmax(const Tensor& input, int64_t dim, ScalarType dtype);
Tensor log_softmax_backward(const Tensor& grad_output, const Tensor& output, int64_t dim,
                            ScalarType input_dtype);

std::tuple<Tensor, Tensor> nll_loss(const Tensor& input, const Tensor& target,
                                    const std::optional<Tensor>& weight, int64_t reduction,
                                    int64_t ignore_index);
Tensor nll_loss_backward(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                         const std::optional<Tensor>& weight, int64_t ignore_index,
                         const std::optional<Tensor>& total_weight);

// The elementwise losses and activations: operators/pointwise.cpp.
std::vector<Tensor> binary_cross_entropy_with_logits(
    const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& pos_weight, const std::optional<Tensor>& normalizer,
    const std::optional<Tensor>& grad_output, int64_t reduction, ScalarType loss_dtype, bool loss,
    bool grad_input, bool grad_target, double focal_gamma, double focal_alpha, double label_smoothing,
    double ignore_index);
void scale_(const Tensor& tensor, const Tensor& factor);  // cuda/pointwise.cpp

// The optimizers' plans: operators/optimizer_step.cpp.
int64_t multi_tensor_plan(const Tensor& like, std::vector<Tensor> states, std::vector<Tensor> steps,
                          std::vector<int64_t> groups, std::vector<int64_t> states_of,
                          std::vector<int64_t> flags);
void multi_tensor_free(int64_t plan);
int64_t multi_tensor_bind(int64_t plan, std::vector<Tensor> params, std::vector<Tensor> grads);
bool multi_tensor_rebind(int64_t plan, const Tensor& views);
Tensor multi_tensor_square_sum(int64_t plan);

}  // namespace fused_ml
