#include "plan.h"

#include <algorithm>

#include "optimizer_step.h"

namespace fused_ml {

namespace {

int64_t item_size(ScalarType type) {
  return type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : 2;
}

// By the C functions themselves: this runs for every parameter and gradient of a bind.
bool same(const Tensor& tensor, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  int64_t dims = 0;
  int64_t *now = nullptr, *now_strides = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(tensor.get(), &dims));
  if (static_cast<size_t>(dims) != sizes.size()) return false;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor.get(), &now));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor.get(), &now_strides));
  return std::equal(sizes.begin(), sizes.end(), now) &&
         std::equal(strides.begin(), strides.end(), now_strides);
}

bool same(const TensorView& view, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  if (static_cast<size_t>(view.dims) != sizes.size()) return false;
  for (size_t d = 0; d < sizes.size(); ++d) {  // one or two dimensions as a rule: a memcmp takes longer
    if (view.sizes[d] != sizes[d] || view.strides[d] != strides[d]) return false;
  }
  return true;
}

bool of_type(const TensorView& view, ScalarType type) {
  const auto expected = type == ScalarType::BFloat16 ? TensorView::bfloat : TensorView::floating;
  return view.type == expected && view.bits == 8 * item_size(type) && view.lanes == 1;
}

bool fused_type(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
         type == ScalarType::Half;
}

bool strided(const Tensor& tensor) {
  int32_t layout = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor.get(), &layout));
  return layout == aoti_torch_layout_strided();
}

}  // namespace

double Plan::Item::host_count() const {
  return double_step ? *static_cast<const double*>(step_data) : *static_cast<const float*>(step_data);
}

void Plan::Item::count_on_host() {
  if (double_step) {
    *static_cast<double*>(step_data) += 1;
  } else {
    *static_cast<float*>(step_data) += 1;
  }
}

Plan::Plan(const Tensor& like, std::vector<Tensor> states, std::vector<Tensor> steps,
           const std::vector<int64_t>& groups, const std::vector<int64_t>& states_of,
           const std::vector<int64_t>& flags)
    : like_(like),
      device_(like.is_cpu() ? TensorView::cpu : TensorView::cuda),
      device_index_(like.is_cpu() ? 0 : like.get_device_index()),
      items_(groups.size()) {
  STD_TORCH_CHECK(states_of.size() == groups.size() && flags.size() == groups.size(),
                  "groups, states_of and flags: one number for each parameter");
  STD_TORCH_CHECK(steps.empty() || steps.size() == groups.size(), "steps: one for each parameter, or none");
  size_t next = 0;
  for (size_t i = 0; i < items_.size(); ++i) {
    Item& item = items_[i];
    STD_TORCH_CHECK(groups[i] >= 0, "parameter ", i, " is of group ", groups[i]);
    item.states_mask = static_cast<unsigned>(states_of[i]);
    item.states_count = __builtin_popcount(item.states_mask);
    STD_TORCH_CHECK(states_of[i] == item.states_mask && item.states_count <= kMaxStates &&
                        next + item.states_count <= states.size(),
                    "parameter ", i, " has the states ", states_of[i], ", by bit: expected at most ",
                    kMaxStates, " and all of them in the list");
    for (int k = 0; k < item.states_count; ++k) item.states.push_back(std::move(states[next++]));
    if (!steps.empty()) item.step = std::move(steps[i]);
    item.group = groups[i];
    item.first = flags[i] & kFirst;
    item.host_step = flags[i] & kHostStep;
    groups_ = std::max(groups_, item.group + 1);
    counted_ &= item.step.has_value();
    first_ |= item.first;
  }
}

const Tensor& Plan::operand(const Item& item, int k, const Tensor& param, const Tensor& grad) const {
  return k == 0 ? param : k == 1 ? grad : item.states[k - 2];
}

bool Plan::as_last_seen(const Item& item, const Tensor& param, const Tensor& grad) const {
  return item.known && param.data_ptr() == item.operands[0] && param.scalar_type() == item.scalar_type &&
         same(param, item.sizes, item.strides[0]) && lies_on_device_of(grad, like_) && strided(grad) &&
         grad.scalar_type() == item.scalar_type && same(grad, item.sizes, item.strides[1]) &&
         states_as_last_seen(item);
}

bool Plan::as_last_seen(const Item& item, const TensorView& param, const TensorView& grad) const {
  const auto here = [&](const TensorView& view) {
    return view.device == device_ && view.device_index == device_index_ && of_type(view, item.scalar_type);
  };
  return item.known && param.address() == item.operands[0] && here(param) &&
         same(param, item.sizes, item.strides[0]) && here(grad) && same(grad, item.sizes, item.strides[1]) &&
         (grad.data || item.numel == 0) && states_as_last_seen(item);
}

bool Plan::states_as_last_seen(const Item& item) const {
  // `state.data = ...` moves a state to other memory; a state that kept its memory kept its shape and type.
  for (int k = 0; k < item.states_count; ++k) {
    if (item.states[k].data_ptr() != item.operands[2 + k]) return false;
  }
  return !item.step || item.step->data_ptr() == item.step_data;
}

Problem Plan::check(const Item& item, const Tensor& param, const Tensor& grad) const {
  for (int k = 0; k < 2 + item.states_count; ++k) {
    const Tensor& tensor = operand(item, k, param, grad);
    if (!lies_on_device_of(tensor, like_)) return Problem::device;
    if (!strided(tensor)) return Problem::layout;
  }
  const ScalarType type = param.scalar_type();
  if (!fused_type(type) || grad.scalar_type() != type) return Problem::dtype;
  for (int k = 0; k < item.states_count; ++k) {
    const ScalarType state = item.states[k].scalar_type();
    const bool wide =
        state == ScalarType::Float && (type == ScalarType::BFloat16 || type == ScalarType::Half);
    if ((state != type && !wide) || state != item.states[0].scalar_type()) return Problem::state_dtype;
  }
  const auto sizes = param.sizes();
  for (int k = 1; k < 2 + item.states_count; ++k) {
    const auto other = operand(item, k, param, grad).sizes();
    if (!std::equal(sizes.begin(), sizes.end(), other.begin(), other.end())) return Problem::shape;
  }
  return Problem::none;
}

Problem Plan::look_at_step(Item& item) const {
  if (!item.step) return Problem::none;
  const ScalarType type = item.step->scalar_type();
  const bool number = type == ScalarType::Float || type == ScalarType::Double;
  const bool here = item.host_step ? item.step->is_cpu() : lies_on_device_of(*item.step, like_);
  if (!here || !number || item.step->numel() != 1) return Problem::step;
  item.double_step = type == ScalarType::Double;
  item.step_data = item.step->data_ptr();
  return Problem::none;
}

Problem Plan::look_at(Item& item, const Tensor& param, const Tensor& grad) const {
  item.known = false;
  Problem problem = check(item, param, grad);
  if (problem == Problem::none) problem = look_at_step(item);
  if (problem != Problem::none) return problem;
  item.scalar_type = param.scalar_type();
  item.state_scalar_type = item.states_count ? item.states[0].scalar_type() : item.scalar_type;
  item.numel = param.numel();
  const auto sizes = param.sizes();
  item.sizes.assign(sizes.begin(), sizes.end());
  for (int k = 0; k < 2 + item.states_count; ++k) {
    const Tensor& tensor = operand(item, k, param, grad);
    item.operands[k] = tensor.data_ptr();
    const auto strides = tensor.strides();
    item.strides[k].assign(strides.begin(), strides.end());
  }
  problem = lay_out(item);
  item.known = problem == Problem::none;
  return problem;
}

// Dimensions of size 1 dropped, the others ordered by the parameter's memory, and those that run on into one
// another in every operand merged. What is left is one dense dimension, or needs a StridedLayout.
Problem Plan::lay_out(Item& item) {
  item.layout.reset();
  if (item.numel <= 1) return Problem::none;
  const int operands = 2 + item.states_count;
  std::vector<size_t> order;
  for (size_t d = 0; d < item.sizes.size(); ++d) {
    if (item.sizes[d] != 1) order.push_back(d);
  }
  for (size_t d : order) {
    for (int k = 0; k < operands; ++k) {
      if (k != 1 && item.strides[k][d] == 0) return Problem::overlap;
    }
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return item.strides[0][a] > item.strides[0][b]; });
  std::vector<std::vector<int64_t>> merged;  // size, then the operands' strides
  for (size_t d : order) {
    std::vector<int64_t> dim{item.sizes[d]};
    for (int k = 0; k < operands; ++k) dim.push_back(item.strides[k][d]);
    bool runs_on = !merged.empty();
    for (int k = 1; runs_on && k <= operands; ++k) runs_on = merged.back()[k] == dim[k] * dim[0];
    if (runs_on) dim[0] *= merged.back()[0], merged.pop_back();
    merged.push_back(std::move(dim));
  }
  bool dense = merged.size() == 1;
  for (int k = 1; dense && k <= operands; ++k) dense = merged[0][k] == 1;
  if (dense) return Problem::none;
  if (merged.size() > StridedLayout::max_dims) return Problem::dimensions;
  item.layout = std::make_unique<StridedLayout>();
  item.layout->dims = static_cast<int>(merged.size());
  for (size_t d = 0; d < merged.size(); ++d) {
    item.layout->sizes[d] = merged[d][0];
    for (int k = 0; k < operands; ++k) item.layout->strides[k][d] = merged[d][k + 1];
  }
  return Problem::none;
}

// Tensors whose memory overlaps are stepped one after the other, in order: wave by wave. Nearly always all
// are 0.
std::vector<int64_t> Plan::waves() const {
  struct Range {
    const char *begin, *end;
    size_t item;
  };
  std::vector<Range> written;
  for (size_t i = 0; i < items_.size(); ++i) {
    const Item& item = items_[i];
    for (int k = 0; item.numel && k < 2 + item.states_count; ++k) {
      if (k == 1) continue;
      int64_t last = 0;
      for (size_t d = 0; d < item.sizes.size(); ++d) last += (item.sizes[d] - 1) * item.strides[k][d];
      const char* begin = static_cast<const char*>(item.operands[k]);
      written.push_back(
          {begin, begin + (last + 1) * item_size(k ? item.state_scalar_type : item.scalar_type), i});
    }
  }
  std::vector<int64_t> wave(items_.size(), 0);
  std::vector<Range> sorted = written;
  std::sort(sorted.begin(), sorted.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  bool overlap = false;
  for (size_t i = 1; i < sorted.size(); ++i) overlap |= sorted[i].begin < sorted[i - 1].end;
  if (!overlap) return wave;
  for (size_t i = 0; i < written.size(); ++i) {  // in the items' order
    for (size_t j = 0; j < i; ++j) {
      const Range &a = written[j], &b = written[i];
      if (a.item != b.item && a.begin < b.end && b.begin < a.end) {
        wave[b.item] = std::max(wave[b.item], wave[a.item] + 1);
      }
    }
  }
  return wave;
}

void Plan::group_launches() {
  launches_.clear();
  const std::vector<int64_t> wave = waves();
  for (size_t i = 0; i < items_.size(); ++i) {
    const Item& item = items_[i];
    const DType type = dtype_of(item.scalar_type), state_type = dtype_of(item.state_scalar_type);
    auto launch = std::find_if(launches_.begin(), launches_.end(), [&](const Launch& l) {
      return l.wave == wave[i] && l.states == item.states_mask && l.type == type &&
             l.state_type == state_type;
    });
    if (launch == launches_.end()) {
      launch = launches_.insert(
          launch, {item.states_mask, item.states_count, type, state_type, wave[i], {}, {}, {0}});
    }
    launch->items.push_back(i);
    launch->entries.emplace_back();
    const int64_t granules = (item.numel + kMultiTensorGranule - 1) / kMultiTensorGranule;
    launch->first_granule.push_back(launch->first_granule.back() + granules);
  }
  std::stable_sort(launches_.begin(), launches_.end(),
                   [](const Launch& a, const Launch& b) { return a.wave < b.wave; });
  for (Launch& launch : launches_) {
    for (size_t n = 0; n < launch.items.size(); ++n) {
      Item& item = items_[launch.items[n]];
      item.entry = &launch.entries[n];
      std::copy(std::begin(item.operands), std::end(item.operands), item.entry->operands);
      item.entry->numel = item.numel;
      item.entry->layout = item.layout.get();
    }
  }
}

void Plan::set_gradient(Item& item, void* address) {
  item.operands[1] = address;
  if (item.entry) item.entry->operands[1] = address;
}

int64_t Plan::bind(const std::vector<Tensor>& params, std::vector<Tensor> grads) {
  STD_TORCH_CHECK(params.size() == items_.size() && grads.size() == items_.size(), "the plan is for ",
                  items_.size(), " parameters; got ", params.size(), " and ", grads.size(), " gradients");
  bool changed = !grouped_;
  grouped_ = bound_ = false;
  for (size_t i = 0; i < items_.size(); ++i) {
    if (as_last_seen(items_[i], params[i], grads[i])) {
      set_gradient(items_[i], grads[i].data_ptr());
      continue;
    }
    const Problem problem = look_at(items_[i], params[i], grads[i]);
    if (problem != Problem::none) return static_cast<int64_t>(problem) + 16 * static_cast<int64_t>(i);
    changed = true;
  }
  if (changed) group_launches();
  grads_ = std::move(grads);
  grouped_ = bound_ = true;
  return 0;
}

bool Plan::rebind(const TensorView* views, int64_t parameters) {
  bound_ = false;
  if (!grouped_ || static_cast<size_t>(parameters) != items_.size()) return false;
  for (size_t i = 0; i < items_.size(); ++i) {
    const TensorView &param = views[2 * i], &grad = views[2 * i + 1];
    if (!as_last_seen(items_[i], param, grad)) return false;
    set_gradient(items_[i], grad.address());
  }
  bound_ = true;
  return true;
}

std::vector<Plan::Launch>& Plan::launches() {
  STD_TORCH_CHECK(bound_, "the plan has no gradients: bind them before every run");
  return launches_;
}

void Plan::finish(bool skipped) {
  grads_.clear();
  bound_ = false;
  if (skipped || !first_) return;
  for (Item& item : items_) item.first = false;
  first_ = false;
}

}  // namespace fused_ml
