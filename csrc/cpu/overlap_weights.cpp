// Weights of the overlap alone: largest IoU of every RoI with its image's reference boxes, then g.
//
// Floor: R x F pairs x about 14 vector operations, one of them a division; the boxes of an image
// stay in L1.

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "checks.h"
#include "core/gompertz.h"
#include "cpu/box_panels.h"

namespace d2_ssod {
namespace {

constexpr int64_t kChunkRows = 64;

template <typename T>
struct OverlapArguments {
  const T* boxes;             // [R, 4]
  const bool* is_foreground;  // [R]
  const BoxPanels<T>& references;
  const std::vector<Chunk>& chunks;
  bool has_ground_truth;
  T a, b, c;
  T* weights;  // [R]
};

template <typename Isa, typename T>
D2_SSOD_INLINE void weigh_chunk(const OverlapArguments<T>& arguments, int64_t task, T*) {
  const Chunk& chunk = arguments.chunks[task];
  const bool no_reference = arguments.references.count(chunk.image) == 0;
  for (int64_t row = chunk.begin; row < chunk.end; ++row) {
    const Box<T> box = load_box(arguments.boxes + 4 * row);
    const bool weight_is_one =
        arguments.has_ground_truth ? no_reference : arguments.is_foreground[row];
    arguments.weights[row] =
        weight_is_one
            ? 1 + (box.area - box.area)
            : gompertz(largest_overlaps<Isa, T, false>(box, arguments.references, chunk.image).iou,
                       arguments.a, arguments.b, arguments.c);
  }
}

D2_SSOD_INSTRUCTION_SETS(weigh_chunk, OverlapArguments)

template <typename T>
void run(const at::Tensor& boxes, const at::Tensor& is_foreground,
         const std::vector<int64_t>& offsets, double a, double b, double c,
         const at::Tensor& references, const RowsByImage& reference_rows, bool has_ground_truth,
         const at::Tensor& weights) {
  const BoxPanels<T> panels(references.const_data_ptr<T>(), reference_rows);
  const std::vector<Chunk> chunks = cut(offsets, kChunkRows);
  const OverlapArguments<T> arguments{boxes.const_data_ptr<T>(),
                                      is_foreground.const_data_ptr<bool>(),
                                      panels,
                                      chunks,
                                      has_ground_truth,
                                      static_cast<T>(a),
                                      static_cast<T>(b),
                                      static_cast<T>(c),
                                      weights.mutable_data_ptr<T>()};
  const auto weigh = weigh_chunk_for_this_cpu<T>();
  parallel_tasks<T>(0, static_cast<int64_t>(chunks.size()), 0,
                    [&](int64_t task, T* scratch) { weigh(arguments, task, scratch); });
}

at::Tensor overlap_weights_cpu(const at::Tensor& boxes, const at::Tensor& is_foreground,
                               c10::SymIntArrayRef rois_per_image, double a, double b, double c,
                               const std::optional<at::Tensor>& gt_boxes,
                               at::OptionalSymIntArrayRef gts_per_image) {
  check_boxes("boxes", boxes);
  check_foreground(is_foreground, boxes);
  const auto offsets = offsets_from_counts(
      "rois_per_image", C10_AS_INTARRAYREF_SLOW(rois_per_image), "boxes", boxes.size(0));
  check_ground_truth(gt_boxes, gts_per_image.has_value(), gts_per_image ? gts_per_image->size() : 0,
                     rois_per_image.size(), boxes);
  const at::Tensor flags = is_foreground.contiguous();
  const RowsByImage references =
      gt_boxes
          ? all_rows(offsets_from_counts("gts_per_image", C10_AS_INTARRAYREF_SLOW(*gts_per_image),
                                         "gt_boxes", gt_boxes->size(0)))
          : select_rows(flags.const_data_ptr<bool>(), offsets, true);
  const at::Tensor rois = boxes.contiguous();
  const at::Tensor reference_boxes = gt_boxes ? gt_boxes->contiguous() : rois;
  at::Tensor weights = at::empty({boxes.size(0)}, boxes.options());
  if (boxes.scalar_type() == at::kDouble) {
    run<double>(rois, flags, offsets, a, b, c, reference_boxes, references, gt_boxes.has_value(),
                weights);
  } else {
    run<float>(rois, flags, offsets, a, b, c, reference_boxes, references, gt_boxes.has_value(),
               weights);
  }
  return weights;
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CPU, m) { m.impl("overlap_weights", &overlap_weights_cpu); }

}  // namespace d2_ssod
