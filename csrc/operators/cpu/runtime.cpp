// The instruction-set choice, torch's thread pool and per-thread scratch memory, for the kernels.
#include <cstdlib>
#include <memory>

#include "operators/torch_api.h"
#include "frames/cpu/prelude.h"

namespace fused_ml {

// What the region of a level defines (isa_<level>_*.cpp).
#define FUSED_ML_LEVEL(level)                                                                \
  namespace level {                                                                          \
  void run_rowwise(RowwiseOp, const RowwiseOptions&, const RowwiseArguments&);               \
  int64_t count_rows(const RowwiseArguments&, int64_t begin, int64_t end);                   \
  void run_pointwise(const PointwiseFormula&, const PointwiseArguments&);                    \
  void multi_tensor_update(int code, const MultiTensorArguments&);                           \
  void multi_tensor_square_sum(const MultiTensorArguments&);                                 \
  constexpr Kernels kernels = {#level,        run_rowwise,         count_rows,               \
                               run_pointwise, multi_tensor_update, multi_tensor_square_sum}; \
  }

FUSED_ML_LEVEL(baseline)
#if defined(__x86_64__)
FUSED_ML_LEVEL(avx2)
FUSED_ML_LEVEL(avx512)
#endif
#undef FUSED_ML_LEVEL

namespace {

constexpr int kLevels = static_cast<int>(InstructionSet::count);

#if defined(__x86_64__)
const Kernels* const kCompiled[kLevels] = {&baseline::kernels, &avx2::kernels, &avx512::kernels};

bool supported(int level) {
  switch (static_cast<InstructionSet>(level)) {
    case InstructionSet::baseline:
      return true;
    case InstructionSet::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("bmi2");
    case InstructionSet::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    default:
      return false;
  }
}
#else
const Kernels* const kCompiled[kLevels] = {&baseline::kernels, nullptr, nullptr};
bool supported(int level) { return level == 0; }
#endif

int best_level() {
  for (int level = kLevels - 1; level > 0; --level) {
    if (kCompiled[level] && supported(level)) return level;
  }
  return 0;
}

int& chosen() {
  static int level = best_level();
  return level;
}

}  // namespace

const Kernels& kernels() { return *kCompiled[chosen()]; }

int64_t cpu_isa() { return chosen(); }

int64_t cpu_isas_compiled() {
  int64_t mask = 0;
  for (int level = 0; level < kLevels; ++level) mask |= int64_t{kCompiled[level] != nullptr} << level;
  return mask;
}

int64_t cpu_isas_supported() {
  int64_t mask = 0;
  for (int level = 0; level < kLevels; ++level)
    mask |= int64_t{kCompiled[level] && supported(level)} << level;
  return mask;
}

void choose_cpu_isa(int64_t level) {
  STD_TORCH_CHECK(level >= 0 && level < kLevels && (cpu_isas_supported() >> level & 1), "instruction set ",
                  level, " is not available on this CPU");
  chosen() = static_cast<int>(level);
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

void parallel_for(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  if (count <= 0) return;
  if (count <= grain) return body(context, 0, count);
  torch::stable::parallel_for(0, count, grain,
                              [&](int64_t begin, int64_t end) { body(context, begin, end); });
}

// Under AddressSanitizer every request gets a buffer of its own, no larger than asked for, so that an overrun
// and a use after the next request are seen.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kExactScratch = true;
#else
constexpr bool kExactScratch = false;
#endif

void* thread_scratch(Scratch slot, size_t bytes) {
  struct Buffer {
    void* data = nullptr;
    size_t size = 0;
    ~Buffer() { std::free(data); }
  };
  thread_local Buffer buffers[static_cast<int>(Scratch::count)];
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (buffer.size < bytes || kExactScratch) {
    const size_t rounded = kExactScratch ? bytes : (bytes + 4095) / 4096 * 4096;
    std::free(buffer.data);
    buffer.data = nullptr;
    buffer.size = 0;
    void* fresh = nullptr;
    const bool full = posix_memalign(&fresh, 4096, rounded) != 0;
    STD_TORCH_CHECK(!full, "out of memory: ", rounded, " bytes of scratch for a fused_ml kernel");
    buffer.data = fresh;
    buffer.size = rounded;
  }
  return buffer.data;
}

}  // namespace fused_ml

// The library's one exported symbol: the kernels of a level, or nullptr where this CPU cannot run them. By it
// the raw module (csrc/testing) runs the shipped binary's kernels without torch's dispatcher.
extern "C" __attribute__((visibility("default"))) const fused_ml::Kernels* fused_ml_kernels(int level) {
  using namespace fused_ml;
  return level >= 0 && level < kLevels && (cpu_isas_supported() >> level & 1) ? kCompiled[level] : nullptr;
}
