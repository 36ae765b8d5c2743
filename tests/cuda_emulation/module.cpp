// The operators with the launchers of csrc/cuda, compiled by g++ and run by emulation.h, for
// tensors on the CPU. All of these get memory as hostile as it may be: full of NaN (or -1), ending
// at a page that may not be touched, null if of no bytes.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <memory>
#include <mutex>
#include <unordered_map>

// First: after the stubs, whatever is registered is registered for the CPU.
#include "library.cpp"

#include "cuda/overlap_weights.cu"
#include "cuda/pairwise_overlap.cu"
#include "cuda/uncertainty_weights.cu"

namespace {

class GuardedAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, cpu};
    // CUDA's allocations start at multiples of 512; the kernels rely on 16.
    auto memory = std::make_unique<emulation::GuardedMemory>((bytes + 15) / 16 * 16);
    void* data = memory->data();
    std::memset(data, 0xff, bytes);
    const std::lock_guard lock(mutex());
    owners()[data] = std::move(memory);
    return {data, data, &free, cpu};
  }
  // PyTorch's own CPU kernels free by the address alone, so that it is all there is to know.
  c10::DeleterFnPtr raw_deleter() const override { return &free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }

 private:
  static void free(void* data) {
    const std::lock_guard lock(mutex());
    owners().erase(data);
  }
  // Neither is destroyed: tensors may outlive everything else.
  static std::unordered_map<void*, std::unique_ptr<emulation::GuardedMemory>>& owners() {
    static auto* map = new std::unordered_map<void*, std::unique_ptr<emulation::GuardedMemory>>;
    return *map;
  }
  static std::mutex& mutex() {
    static auto* mutex = new std::mutex;
    return *mutex;
  }
};

GuardedAllocator allocator;
const bool allocator_is_set = [] {
  c10::SetCPUAllocator(&allocator, /*priority=*/100);
  return true;
}();

d2_ssod::Tiling chosen;

void with_chosen_tiling(const d2_ssod::UncertaintyInputs& inputs,
                        const d2_ssod::UncertaintyOutputs& outputs) {
  d2_ssod::run_float(inputs, outputs, chosen);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(d2_ssod_emulation, m) {
  m.def("seed(int seed) -> ()",
        [](int64_t seed) { emulation::random_engine().seed(static_cast<unsigned>(seed)); });
  // 1 small, 2 medium, 3 large; about how many blocks.
  m.def("choose_tiling(int size, int blocks) -> ()", [](int64_t size, int64_t blocks) {
    chosen = {static_cast<d2_ssod::TileSize>(size), blocks};
  });
  m.def(
      "uncertainty_weights(Tensor boxes, Tensor embeddings, Tensor is_foreground, "
      "SymInt[] rois_per_image, float a, float b, float c_iou, float c_sim, Tensor? gt_boxes, "
      "SymInt[]? gts_per_image) -> (Tensor, Tensor, Tensor)",
      d2_ssod::uncertainty_weights<with_chosen_tiling>);
}
