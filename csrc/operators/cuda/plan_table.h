// A plan's description in the device's memory: host code.
#pragma once

#include <cstring>

#include "operators/plan.h"
#include "on_device.h"

namespace fused_ml::cuda {

bool is_capturing(cudaStream_t stream);

// Collects records, each list 16-byte aligned.
class TableWriter {
 public:
  template <class Record>
  size_t put(const std::vector<Record>& records) {
    return put(records.data(), records.size() * sizeof(Record));
  }
  // Returns where they begin.
  size_t put(const void* data, size_t size) {
    const size_t begin = bytes_.size();
    bytes_.resize((begin + size + kVectorAlignment - 1) / kVectorAlignment * kVectorAlignment);
    if (size) std::memcpy(bytes_.data() + begin, data, size);
    return begin;
  }
  const std::vector<unsigned char>& bytes() const { return bytes_; }

 private:
  static constexpr size_t kVectorAlignment = 16;
  std::vector<unsigned char> bytes_ = std::vector<unsigned char>(kVectorAlignment);  // no record lies at 0
};

// The tensors of a launch, of which item i belongs to the set sets[i]; their layouts go into `writer`.
std::vector<MultiTensorTensor> describe(const Plan::Launch& launch, const std::vector<int32_t>& sets,
                                        TableWriter& writer);

// Device memory that holds what the host last said. Only pages that changed are sent again. While a graph is
// captured the memory is fresh, and the graph's: later steps must not write what its replays read.
class Table {
 public:
  const unsigned char* follow(const std::vector<unsigned char>& bytes, const Tensor& like,
                              cudaStream_t stream);

 private:
  std::optional<Tensor> memory_, captured_;
  cudaStream_t stream_ = nullptr;  // on which the memory was allocated
  std::vector<unsigned char> sent_;
};

}  // namespace fused_ml::cuda
