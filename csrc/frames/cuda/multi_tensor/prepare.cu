// What an optimizer's step needs before its tensors are touched: their description, uploaded, and the
// formulas' constants, computed where step counts, learning rates, loss scale and norm may lie.
#include "catalog/optimizers.h"
#include "frames/cuda/memory.cuh"

namespace fused_ml::cuda {

namespace {

constexpr int kPrepareThreads = 256;

struct alignas(16) Page {
  uint4 at[kPage / 16];
};

__global__ void __launch_bounds__(kPage / 16)
    upload_kernel(const __grid_constant__ Page page, uint4* to, int vectors) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < vectors) to[i] = page.at[i];
}

__device__ double number_or(const Number& number, double otherwise) {
  return number.data ? get_number(number) : otherwise;
}

__device__ formulas::GradientFactor factor_of(const MultiTensorPreparation& p) {
  return formulas::gradient_factor({p.gradient_factor / number_or(p.grad_scale, 1),
                                    p.found_inf.data != nullptr, number_or(p.found_inf, 0),
                                    p.square_sum.data != nullptr, number_or(p.square_sum, 0), p.max_norm});
}

template <class Constants>
__device__ void put(const Constants& constants, MultiTensorConstants& to) {
  constexpr int kCount = sizeof(Constants) / sizeof(double);
  static_assert(kCount <= kMultiTensorConstants);
  const double* from = reinterpret_cast<const double*>(&constants);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    to.wide[i] = from[i];
    to.narrow[i] = static_cast<float>(from[i]);
  }
}

template <class Options>
__device__ void prepare(const MultiTensorGroup& group, const MultiTensorSet& set, double factor,
                        MultiTensorConstants& to) {
  constexpr int kCount = sizeof(Options) / sizeof(double);
  static_assert(kCount <= kMultiTensorOptions);
  Options options;
  double* const o = reinterpret_cast<double*>(&options);
#pragma unroll
  for (int i = 0; i < kCount; ++i) o[i] = number_or(group.number[i], group.option[i]);
  const double step = Options::kCounts ? number_or(set.device_step, set.step) + 1 : 1;
  put(formulas::constants_of(options, {step, set.first != 0}, factor), to);
}

template <class... F>
__device__ void prepare(int family, const MultiTensorGroup& group, const MultiTensorSet& set, double factor,
                        MultiTensorConstants& to, formulas::List<F...>) {
  int code = 0;
  ((code++ == family ? prepare<typename F::Options>(group, set, factor, to) : void()), ...);
}

__device__ void count(const Number& step) {
  if (step.type == NumberType::float32) {
    *static_cast<float*>(const_cast<void*>(step.data)) += 1;
  } else {
    *static_cast<double*>(const_cast<void*>(step.data)) += 1;
  }
}

__global__ void __launch_bounds__(kPrepareThreads)
    prepare_kernel(const __grid_constant__ MultiTensorPreparation p) {
  const formulas::GradientFactor factor = factor_of(p);
  for (int64_t i = threadIdx.x; i < p.count; i += kPrepareThreads) {
    const MultiTensorSet& set = p.sets[i];
    prepare(p.family, p.groups[set.group], set, factor.factor, p.constants[i], formulas::Families<double>{});
    if (set.device_step.data && !factor.skipped) count(set.device_step);
  }
  if (threadIdx.x != 0) return;
  put_number(p.norm, p.norm_type, factor.norm);
  *p.skipped = factor.skipped ? 1.0f : 0.0f;
}

}  // namespace

void launch_preparation(const MultiTensorPreparation& preparation, cudaStream_t stream) {
  launch({"prepare", 1, kPrepareThreads, stream}, prepare_kernel, preparation);
}

void launch_upload(const unsigned char* from, unsigned char* to, int bytes, cudaStream_t stream) {
  Page page;
  std::copy(from, from + bytes, reinterpret_cast<unsigned char*>(page.at));
  launch({"upload", 1, kPage / 16, stream}, upload_kernel, page, reinterpret_cast<uint4*>(to), bytes / 16);
}

}  // namespace fused_ml::cuda
