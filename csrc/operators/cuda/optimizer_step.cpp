// The optimizers' CUDA side: nothing waits for the device, but a step under a GradScaler that the host must
// count.
#include "operators/optimizer_step.h"

#include <cstring>

#include "operators/optimizer_entries.h"
#include "plan_table.h"

namespace fused_ml {

namespace {

using cuda::MultiTensorConstants;
using cuda::MultiTensorGroup;
using cuda::MultiTensorList;
using cuda::MultiTensorPreparation;
using cuda::MultiTensorSet;
using cuda::OnDeviceOf;
using cuda::Table;

// What a plan keeps on the device: its tensors, and the numbers of the last step.
struct Memory {
  Table tensors, numbers;
};

Memory& memory_of(Plan& plan) {
  if (!plan.on_device) plan.on_device = std::make_shared<Memory>();
  return *static_cast<Memory*>(plan.on_device.get());
}

struct Groups {
  std::vector<MultiTensorGroup> groups;
  std::vector<std::optional<Tensor>> holders;  // of numbers, in types that kernels read
};

Groups groups_of(const StepCall& call) {
  const size_t options = kFamilies[call.family].options;
  Groups result;
  result.groups.resize((call.options.size() + options - 1) / options);
  for (size_t i = 0; i < call.options.size(); ++i) {
    result.groups[i / options].option[i % options] = call.options[i];
  }
  result.holders.resize(call.numbers.size());
  for (size_t i = 0; i < call.numbers.size(); ++i) {
    const size_t place = static_cast<size_t>(call.places[i]);
    result.groups[place / options].number[place % options] =
        cuda::device_number(call.numbers[i], result.holders[i]);
  }
  return result;
}

struct Sets {
  std::vector<MultiTensorSet> sets;
  std::vector<int32_t> of_item;
};

Sets sets_of(Plan& plan) {
  Sets result;
  for (const Plan::Item& item : plan.items()) {
    MultiTensorSet set{item.group, 0, {}, item.first};
    if (item.step && item.host_step) set.step = item.host_count();
    if (item.step && !item.host_step) {
      set.device_step = {item.step_data,
                         item.double_step ? cuda::NumberType::float64 : cuda::NumberType::float32};
    }
    // Neighbours are mostly alike; a count on the device is a set of its own.
    const auto same = [&](const MultiTensorSet& other) {
      return other.group == set.group && other.step == set.step && !other.device_step.data &&
             !set.device_step.data && other.first == set.first;
    };
    if (result.sets.empty() || !same(result.sets.back())) result.sets.push_back(set);
    result.of_item.push_back(static_cast<int32_t>(result.sets.size() - 1));
  }
  return result;
}

// A list for every launch, in the device's memory.
std::vector<MultiTensorList> upload_tensors(Plan& plan, const Sets& sets, cudaStream_t stream) {
  cuda::TableWriter writer;
  std::vector<size_t> begins;
  const std::vector<Plan::Launch>& launches = plan.launches();
  for (const Plan::Launch& launch : launches) {
    begins.push_back(writer.put(cuda::describe(launch, sets.of_item, writer)));
  }
  const unsigned char* table = memory_of(plan).tensors.follow(writer.bytes(), plan.like(), stream);
  std::vector<MultiTensorList> lists;
  for (size_t n = 0; n < launches.size(); ++n) {
    lists.push_back({table, reinterpret_cast<const cuda::MultiTensorTensor*>(table + begins[n]),
                     static_cast<int64_t>(launches[n].items.size()), launches[n].first_granule.back(),
                     launches[n].type, launches[n].state_type});
  }
  return lists;
}

void upload_numbers(Plan& plan, const Groups& groups, const Sets& sets, MultiTensorPreparation& p,
                    cudaStream_t stream) {
  cuda::TableWriter writer;
  const size_t first_group = writer.put(groups.groups), first_set = writer.put(sets.sets);
  const unsigned char* table = memory_of(plan).numbers.follow(writer.bytes(), plan.like(), stream);
  p.groups = reinterpret_cast<const MultiTensorGroup*>(table + first_group);
  p.sets = reinterpret_cast<const MultiTensorSet*>(table + first_set);
  p.count = static_cast<int64_t>(sets.sets.size());
}

// Whether the host has to know if the step was skipped: it counts steps itself, or momentum buffers are new
// until they have had a step. fused_ml/optim/_plan.py has the same rule.
bool host_needs_to_know(Plan& plan, const StepCall& call, cudaStream_t stream) {
  bool needed = false;
  for (const Plan::Item& item : plan.items()) needed |= item.first || (item.step && item.host_step);
  if (!needed || !call.found_inf) return false;
  STD_TORCH_CHECK(
      !cuda::is_capturing(stream),
      "a step under a GradScaler, whose step counts lie on the host or whose momentum buffers are "
      "new, waits for the device and cannot be captured in a graph: use fused=True or "
      "capturable=True, and take a step before the capture");
  return true;
}

bool read(const float* flag, cudaStream_t stream) {
  float value = 0;
  cudaError_t error = cudaMemcpyAsync(&value, flag, sizeof(value), cudaMemcpyDeviceToHost, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  if (error != cudaSuccess) cuda::query_failed(error);
  return value != 0;
}

Tensor new_cell(Plan& plan, ScalarType type) { return fresh(plan.like(), nullptr, nullptr, 0, type); }

}  // namespace

bool lies_on_device_of(const Tensor& tensor, const Tensor& like) {
#ifdef FUSED_ML_EMULATED
  (void)like;
  return tensor.is_cpu();
#else
  return tensor.is_cuda() && tensor.get_device_index() == like.get_device_index();
#endif
}

Tensor square_sum(Plan& plan) {
  const OnDeviceOf device(plan.like());
  const std::vector<MultiTensorList> lists = upload_tensors(plan, sets_of(plan), device.stream());
  const int64_t most = cuda::most_blocks() * std::max<int64_t>(static_cast<int64_t>(lists.size()), 1);
  const Tensor partials = new_vector(plan.like(), most, ScalarType::Double);
  double *const first = partials.mutable_data_ptr<double>(), *next = first;
  for (const MultiTensorList& list : lists) next += cuda::launch_square_sum(list, next, device.stream());
  const Tensor sum = new_cell(plan, ScalarType::Double);
  cuda::launch_total({first, next - first, 1.0, {}, sum.mutable_data_ptr(), DType::float64}, device.stream());
  return sum;
}

std::vector<Tensor> run_step(Plan& plan, const StepCall& call) {
  const OnDeviceOf device(plan.like());
  const cudaStream_t stream = device.stream();
  const bool wait = host_needs_to_know(plan, call, stream);
  const Groups groups = groups_of(call);
  const Sets sets = sets_of(plan);
  const std::vector<MultiTensorList> lists = upload_tensors(plan, sets, stream);
  MultiTensorPreparation p{call.family, nullptr, nullptr, 0, call.gradient_factor, call.max_norm};
  upload_numbers(plan, groups, sets, p, stream);
  std::optional<Tensor> scale, found, sum;
  if (call.grad_scale) p.grad_scale = cuda::device_number(*call.grad_scale, scale);
  if (call.found_inf) p.found_inf = cuda::device_number(*call.found_inf, found);
  if (call.square_sum) p.square_sum = cuda::device_number(*call.square_sum, sum);
  const int64_t doubles = p.count * static_cast<int64_t>(sizeof(MultiTensorConstants) / sizeof(double));
  const Tensor constants = new_vector(plan.like(), doubles, ScalarType::Double);
  p.constants = static_cast<MultiTensorConstants*>(constants.mutable_data_ptr());
  for (const Plan::Item& item : plan.items()) {
    if (item.scalar_type == ScalarType::Double) p.norm_type = DType::float64;
  }
  const Tensor norm = new_cell(plan, p.norm_type == DType::float64 ? ScalarType::Double : ScalarType::Float);
  const Tensor skipped = new_cell(plan, ScalarType::Float);
  p.norm = norm.mutable_data_ptr();
  p.skipped = skipped.mutable_data_ptr<float>();
  cuda::launch_preparation(p, stream);
  const bool known_skipped = wait && read(p.skipped, stream);
  if (!known_skipped) {
    for (size_t n = 0; n < lists.size(); ++n) {
      cuda::launch_update(update_of(call.family, plan.launches()[n].states), lists[n], p.constants,
                          call.found_inf ? p.skipped : nullptr, stream);
    }
    for (Plan::Item& item : plan.items()) {
      if (item.step && item.host_step) item.count_on_host();
    }
  }
  plan.finish(known_skipped);
  if (!call.square_sum) return {};
  return {norm, skipped};
}

}  // namespace fused_ml
