// The optimizers on CUDA: which formula, in which types, on how many blocks.
#include "frame.cuh"

#include "catalog/optimizers.h"

namespace fused_ml::cuda {

namespace {

// Blocks, and list.granules_of_block: `rounds` of what the device holds at once, but no less than what a
// block's threads take in one go if there is enough.
template <class Kernel>
unsigned share_granules(MultiTensorList& list, Kernel kernel, int64_t rounds, int64_t granules_at_once) {
  const int64_t resident = resident_blocks(kernel, kTensorThreads);
  const auto over = [&](int64_t blocks) { return (list.granules + blocks - 1) / blocks; };
  list.granules_of_block = std::max(over(rounds * resident), std::min(over(resident), granules_at_once));
  return static_cast<unsigned>(over(list.granules_of_block));
}

template <class T>
constexpr int64_t kGranulesAtOnce = kTensorThreads * Vector<T>::size / kGranule;

template <class F, class T, class S>
void start(MultiTensorList list, const MultiTensorConstants* constants, const float* skipped,
           cudaStream_t stream) {
  const auto kernel = update_kernel<F, T, S>;
  constexpr int64_t kRounds = 4;  // multiprocessors that are done early take more
  const unsigned blocks = share_granules(list, kernel, kRounds, kGranulesAtOnce<T>);
  launch({"update", blocks, kTensorThreads, stream}, kernel, list, constants, skipped);
}

// States are of the parameters' own type, or float32 beside 16-bit parameters. F, D: in float32 and float64.
template <class F, class D>
void choose_types(const MultiTensorList& list, const MultiTensorConstants* constants, const float* skipped,
                  cudaStream_t stream) {
  with_element(list.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using Formula = std::conditional_t<sizeof(T) == 8, D, F>;
    if constexpr (sizeof(T) == 2 && Formula::states > 0) {
      if (list.state_type == DType::float32)
        return start<Formula, T, float>(list, constants, skipped, stream);
    }
    start<Formula, T, T>(list, constants, skipped, stream);
  });
}

template <class... F, class... D>
auto launcher_at(int code, formulas::List<F...>, formulas::List<D...>) {
  using Launcher = decltype(&choose_types<formulas::Sgd<float>, formulas::Sgd<double>>);
  static constexpr Launcher launchers[] = {choose_types<typename F::Formula, typename D::Formula>...};
  return launchers[code];
}

}  // namespace

void launch_update(int code, const MultiTensorList& list, const MultiTensorConstants* constants,
                   const float* skipped, cudaStream_t stream) {
  if (list.granules == 0) return;
  launcher_at(code, formulas::Updates<float>{}, formulas::Updates<double>{})(list, constants, skipped,
                                                                             stream);
}

int64_t launch_square_sum(const MultiTensorList& list, double* partials, cudaStream_t stream) {
  if (list.granules == 0) return 0;
  int64_t blocks = 0;
  with_element(list.type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const auto kernel = square_sum_kernel<T>;
    MultiTensorList shared = list;
    blocks = share_granules(shared, kernel, 1, kGranulesAtOnce<T>);  // no more than most_blocks()
    launch({"square_sum", static_cast<unsigned>(blocks), kTensorThreads, stream}, kernel, shared, partials);
  });
  return blocks;
}

}  // namespace fused_ml::cuda
