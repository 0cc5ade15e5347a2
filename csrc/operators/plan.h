// A plan: the tensors of an optimizer on one device, laid out for the multi_tensor kernels, and kept from
// step to step.
#pragma once

#include <memory>

#include "tensor_view.h"
#include "torch_api.h"

namespace fused_ml {

// Why a list of tensors cannot be stepped by the kernels. fused_ml/optim/_plan.py has the same list.
enum class Problem : int64_t { none, device, layout, dtype, state_dtype, shape, overlap, dimensions, step };

// What is said of a parameter's states, added up.
enum StateFlag : int64_t {
  kFirst = 1,     // they are new, and zero
  kHostStep = 2,  // the step count lies on the host, whatever device this is
};

// Holds the states and step counts, which nothing but the optimizer refers to. Parameters and gradients are
// handed over at every step instead: a reference from here to a parameter whose hooks refer to the optimizer
// would be a cycle that Python cannot collect.
class Plan {
 public:
  struct Item {
    std::vector<Tensor> states;
    unsigned states_mask = 0;  // which of its family's states they are, by bit
    int states_count = 0;
    std::optional<Tensor> step;
    bool first = false, host_step = false;
    int64_t group = 0;
    // As last seen.
    bool known = false;
    void* operands[kMultiTensorOperands] = {};
    void* step_data = nullptr;
    ScalarType scalar_type = ScalarType::Undefined, state_scalar_type = ScalarType::Undefined;
    bool double_step = false;
    std::vector<int64_t> sizes, strides[kMultiTensorOperands];
    int64_t numel = 0;
    std::unique_ptr<StridedLayout> layout;
    MultiTensorEntry* entry = nullptr;  // its place in a launch

    double host_count() const;  // of steps
    void count_on_host();
  };

  // The items that one pass can take: one update, one pair of types, no memory written twice.
  struct Launch {
    unsigned states;  // by bit
    int states_count;
    DType type, state_type;
    int64_t wave;
    std::vector<size_t> items;
    std::vector<MultiTensorEntry> entries;
    std::vector<int64_t> first_granule;  // and past the last
  };

  // like: any tensor on the device. states: the states of parameter 0, then those of 1 ...; steps: one a
  // parameter, or none at all. groups, states_of, flags: [parameters]; index of the parameter's group, which
  // of the family's states it has, by bit, and StateFlags.
  Plan(const Tensor& like, std::vector<Tensor> states, std::vector<Tensor> steps,
       const std::vector<int64_t>& groups, const std::vector<int64_t>& states_of,
       const std::vector<int64_t>& flags);

  // Takes this step's parameters and gradients, and looks at every tensor anew: sizes, strides, types and
  // addresses may have changed under the same object. 0, or Problem + 16 * the parameter's index; then
  // nothing may be run.
  int64_t bind(const std::vector<Tensor>& params, std::vector<Tensor> grads);

  // The same by views, of parameter 0, gradient 0, parameter 1 ...: unpacking lists of tensors is what a step
  // over small ones spends most of its time on. The gradients must live until the step is done. False: there
  // is more that has changed since the last bind than where the gradients lie; then nothing may be run, and
  // bind can tell what.
  bool rebind(const TensorView* views, int64_t parameters);

  // The bound tensors; raises if there are none.
  std::vector<Launch>& launches();  // of entries without constants
  int64_t groups() const { return groups_; }
  bool counted() const { return counted_; }
  std::vector<Item>& items() { return items_; }
  const Tensor& like() const { return like_; }

  // After a step: lets go of the gradients.
  void finish(bool skipped);

  std::shared_ptr<void> on_device;  // what the device's code keeps from step to step

 private:
  static constexpr int kMaxStates = kMultiTensorOperands - 2;

  const Tensor& operand(const Item& item, int k, const Tensor& param, const Tensor& grad) const;
  bool as_last_seen(const Item& item, const Tensor& param, const Tensor& grad) const;
  bool as_last_seen(const Item& item, const TensorView& param, const TensorView& grad) const;
  bool states_as_last_seen(const Item& item) const;
  Problem look_at(Item& item, const Tensor& param, const Tensor& grad) const;
  Problem check(const Item& item, const Tensor& param, const Tensor& grad) const;
  Problem look_at_step(Item& item) const;
  static Problem lay_out(Item& item);
  std::vector<int64_t> waves() const;
  void group_launches();
  static void set_gradient(Item& item, void* address);

  Tensor like_;
  int32_t device_, device_index_;  // as in a TensorView
  std::vector<Item> items_;
  int64_t groups_ = 0;                   // more than the largest number of one
  bool counted_ = true, first_ = false;  // all have a step count; some have new states
  std::vector<Launch> launches_;
  bool grouped_ = false, bound_ = false;  // the launches are those of the items; the gradients this step's
  std::vector<Tensor> grads_;  // alive from bind to run: they may be copies that the dispatcher made
};

}  // namespace fused_ml
