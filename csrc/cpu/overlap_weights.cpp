// Weights of the overlap alone: largest IoU of every RoI with its image's reference boxes, then g.
//
// Floor: R x F pairs x about 14 vector operations, one of them a division; the boxes of an image
// stay in L1.

#include <torch/library.h>

#include "cpu/box_panels.h"
#include "inputs.h"

namespace d2_ssod {
namespace {

constexpr int64_t kChunkRows = 64;

template <typename T>
struct OverlapArguments {
  const T* boxes;                // [R, 4]
  const uint8_t* is_foreground;  // [R]
  const BoxPanels<T>& references;
  const std::vector<Chunk>& chunks;
  bool has_ground_truth;
  WeightCurve<T> curve;
  T* weights;  // [R]
};

template <typename Isa, typename T>
D2_SSOD_INLINE void weigh_chunk(const OverlapArguments<T>& arguments, int64_t task, T*) {
  const Chunk& chunk = arguments.chunks[task];
  const bool no_reference = arguments.references.count(chunk.image) == 0;
  for (int64_t row = chunk.begin; row < chunk.end; ++row) {
    const Box<T> box = load_box(arguments.boxes + 4 * row);
    const bool weight_is_one =
        arguments.has_ground_truth ? no_reference : arguments.is_foreground[row] != 0;
    arguments.weights[row] =
        weight_is_one
            ? 1 + zero_or_nan(box)
            : overlap_factor(
                  largest_overlaps<Isa, T, false>(box, arguments.references, chunk.image).iou,
                  arguments.curve);
  }
}

D2_SSOD_INSTRUCTION_SETS(weigh_chunk, OverlapArguments)

template <typename T>
void run(const OverlapInputs& inputs, const at::Tensor& weights) {
  const bool has_ground_truth = inputs.ground_truth.has_value();
  const uint8_t* flags = flags_of(inputs.is_foreground);
  const RowsByImage rows = has_ground_truth ? all_rows(inputs.ground_truth->offsets)
                                            : select_rows(flags, inputs.offsets, true);
  const at::Tensor& references = has_ground_truth ? inputs.ground_truth->boxes : inputs.boxes;
  const BoxPanels<T> panels(references.const_data_ptr<T>(), rows);
  const std::vector<Chunk> chunks = cut(inputs.offsets, kChunkRows);
  const OverlapArguments<T> arguments{inputs.boxes.const_data_ptr<T>(),
                                      flags,
                                      panels,
                                      chunks,
                                      has_ground_truth,
                                      inputs.curve.as<T>(),
                                      weights.mutable_data_ptr<T>()};
  const auto weigh = weigh_chunk_for_this_cpu<T>();
  parallel_tasks<T>(0, static_cast<int64_t>(chunks.size()), 0,
                    [&](int64_t task, T* scratch) { weigh(arguments, task, scratch); });
}

void overlap_weights_cpu(const OverlapInputs& inputs, const at::Tensor& weights) {
  (weights.scalar_type() == at::kDouble ? run<double> : run<float>)(inputs, weights);
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CPU, m) {
  m.impl("overlap_weights", overlap_weights<overlap_weights_cpu>);
}

}  // namespace d2_ssod
