#include "kept_memory.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

namespace fused_ml {

namespace {

constexpr size_t kMostBlocks = 4;
constexpr size_t kShareOfMachine = 8;  // what is kept is at most an eighth of the machine's memory
constexpr uintptr_t kPage = 4096, kHugePage = uintptr_t{2} << 20;

// torch's torch_from_blob, which came with 2.11; null before.
using FromBlob = AOTITorchError (*)(void*, int64_t, const int64_t*, const int64_t*, int64_t, int32_t, int32_t,
                                    int32_t, AtenTensorHandle*, int32_t, const uint8_t*, int64_t,
                                    void (*)(void*, void*), void*);

FromBlob find_from_blob() {
  const char* wanted = std::getenv("FUSED_ML_CACHE");
  if (wanted && std::strcmp(wanted, "0") == 0) return nullptr;
  return reinterpret_cast<FromBlob>(dlsym(RTLD_DEFAULT, "torch_from_blob"));
}

Tensor allocate(const int64_t* sizes, const int64_t* strides, int64_t dim, int32_t type_code,
                int32_t device_index) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dim, sizes, strides, type_code,
                                                  aoti_torch_device_type_cpu(), device_index, &handle));
  return Tensor(handle);
}

// Advice on the pages that lie wholly within some memory.
void advise(void* data, size_t bytes, uintptr_t page, int advice) {
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, advice);
}

// Memory of torch's allocator, which counts it as allocated for as long as it is kept.
struct Block {
  Tensor memory;
  size_t bytes;
  void* data() const { return memory.mutable_data_ptr(); }
};
using BlockPointer = std::unique_ptr<Block>;

// No call waits for another: who finds the lock taken does without (so does a forked process, in which the
// lock's holder may be missing).
class KeptMemory {
 public:
  // The block that fits best, of at most twice the size; null: none.
  BlockPointer take(size_t bytes) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return nullptr;
    size_t best = blocks_.size();
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const size_t size = blocks_[i]->bytes;
      if (size < bytes || size / 2 > bytes) continue;
      if (best == blocks_.size() || size <= blocks_[best]->bytes) best = i;
    }
    if (best == blocks_.size()) return nullptr;
    BlockPointer block = std::move(blocks_[best]);
    blocks_.erase(blocks_.begin() + best);
    return block;
  }

  void give(BlockPointer block) {
    static const size_t most = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) *
                               static_cast<size_t>(sysconf(_SC_PAGESIZE)) / kShareOfMachine;
    std::vector<BlockPointer> dropped;  // freed after the lock
    if (block->bytes > most) return;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return;
    advise(block->data(), block->bytes, kHugePage, MADV_FREE);  // a part of one would be taken apart
    blocks_.push_back(std::move(block));
    while (blocks_.size() > kMostBlocks || total() > most) {
      dropped.push_back(std::move(blocks_.front()));
      blocks_.erase(blocks_.begin());
    }
  }

  int64_t empty() {
    std::vector<BlockPointer> dropped;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return 0;
    const size_t bytes = total();
    dropped.swap(blocks_);
    return static_cast<int64_t>(bytes);
  }

 private:
  size_t total() const {
    size_t sum = 0;
    for (const BlockPointer& block : blocks_) sum += block->bytes;
    return sum;
  }

  std::mutex mutex_;
  std::vector<BlockPointer> blocks_;  // the longest kept first
};

KeptMemory& kept_memory() {
  // Never destroyed: tensors may be freed while the process ends.
  static KeptMemory* const kept = new KeptMemory;
  return *kept;
}

void give_back(void*, void* block) { kept_memory().give(BlockPointer(static_cast<Block*>(block))); }

}  // namespace

Tensor large_tensor(const int64_t* sizes, const int64_t* strides, int64_t dim, int32_t type_code,
                    int32_t device_index, size_t bytes) {
  static const FromBlob from_blob = find_from_blob();
  if (!from_blob) {
    Tensor tensor = allocate(sizes, strides, dim, type_code, device_index);
    advise(tensor.mutable_data_ptr(), bytes, kPage, MADV_HUGEPAGE);
    return tensor;
  }
  BlockPointer block = kept_memory().take(bytes);
  if (!block) {
    const int64_t size = static_cast<int64_t>(bytes), step = 1;
    block = std::make_unique<Block>(
        Block{allocate(&size, &step, 1, aoti_torch_dtype_uint8(), device_index), bytes});
    advise(block->data(), bytes, kPage, MADV_HUGEPAGE);
  }
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(from_blob(block->data(), dim, sizes, strides, 0, type_code,
                                   aoti_torch_device_type_cpu(), device_index, &handle,
                                   aoti_torch_layout_strided(), nullptr, 0, give_back, block.get()));
  block.release();
  return Tensor(handle);
}

int64_t empty_cache() { return kept_memory().empty(); }

}  // namespace fused_ml
