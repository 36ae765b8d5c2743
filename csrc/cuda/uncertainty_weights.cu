#include <torch/library.h>

#include <tuple>

#include "cuda/host.h"
#include "cuda/uncertainty_weights.cuh"
#include "cuda/uncertainty_weights_double.cuh"

namespace d2_ssod {
namespace {

struct Outputs {
  at::Tensor weights, max_iou, dissimilarity;  // [R]
};

void uncertainty_weights_float(const at::Tensor& boxes, const at::Tensor& embeddings,
                               const at::Tensor& is_foreground, const std::vector<int64_t>& offsets,
                               const WeightCurve<double>& curve,
                               const std::optional<at::Tensor>& gt_boxes,
                               const std::vector<int64_t>& gt_offsets, const Outputs& out) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t rows = boxes.size(0), images = static_cast<int64_t>(offsets.size()) - 1;
  const int parts = unit_vector_parts(embeddings.scalar_type());
  const UnitVectorMemory units(embeddings, parts);
  // Every allocation costs the CPU a microsecond: one for all integers.
  const at::Tensor integers = at::empty({2 * rows + images}, boxes.options().dtype(at::kInt));
  int* const order = integers.mutable_data_ptr<int>();
  at::Tensor hidden;
  if (gt_boxes.has_value()) hidden = at::empty({rows}, boxes.options());

  UncertaintyParameters p{};
  p.boxes = boxes.const_data_ptr<float>();
  p.is_foreground = is_foreground.const_data_ptr<bool>();
  p.released = gt_boxes.has_value();
  p.gt_boxes = data_or_null<float>(gt_boxes);
  p.units = units.get();
  p.arrivals = order + rows;
  p.hidden = gt_boxes.has_value() ? hidden.mutable_data_ptr<float>() : nullptr;
  p.weights = out.weights.mutable_data_ptr<float>();
  p.max_iou = out.max_iou.mutable_data_ptr<float>();
  p.dissimilarity = out.dissimilarity.mutable_data_ptr<float>();
  p.curve = {static_cast<float>(curve.a), static_cast<float>(curve.b),
             static_cast<float>(curve.c_iou), static_cast<float>(curve.c_sim)};
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets.data(), images, first);
    if (gt_boxes.has_value()) p.gts = make_image_table(gt_offsets.data(), images, first);
    p.foreground = {order, order + 2 * rows + first};
    dispatch_embeddings(embeddings, parts, [&](const auto* pointer, auto kParts) {
      launch_uncertainty_weights<kParts.value>(p, pointer, embeddings.size(1), stream.stream());
    });
  }
}

void uncertainty_weights_double(const at::Tensor& boxes, const at::Tensor& embeddings,
                                const at::Tensor& is_foreground,
                                const std::vector<int64_t>& offsets,
                                const WeightCurve<double>& curve,
                                const std::optional<at::Tensor>& gt_boxes,
                                const std::vector<int64_t>& gt_offsets, const Outputs& out) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t images = static_cast<int64_t>(offsets.size()) - 1;
  UncertaintyDoubleParameters p{};
  p.boxes = boxes.const_data_ptr<double>();
  p.embeddings = embeddings.const_data_ptr<double>();
  p.is_foreground = is_foreground.const_data_ptr<bool>();
  p.released = gt_boxes.has_value();
  p.gt_boxes = data_or_null<double>(gt_boxes);
  p.dimensions = embeddings.size(1);
  p.weights = out.weights.mutable_data_ptr<double>();
  p.max_iou = out.max_iou.mutable_data_ptr<double>();
  p.dissimilarity = out.dissimilarity.mutable_data_ptr<double>();
  p.curve = curve;
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets.data(), images, first);
    if (gt_boxes.has_value()) p.gts = make_image_table(gt_offsets.data(), images, first);
    launch_uncertainty_weights_double(p, stream.stream());
  }
}

// boxes [R, 4], embeddings [R, D], is_foreground [R], gt_boxes [G, 4] -> weights, max_iou,
// dissimilarity [R]
std::tuple<at::Tensor, at::Tensor, at::Tensor> uncertainty_weights_cuda(
    const at::Tensor& boxes, const at::Tensor& embeddings, const at::Tensor& is_foreground,
    c10::SymIntArrayRef rois_per_image, double a, double b, double c_iou, double c_sim,
    const std::optional<at::Tensor>& gt_boxes, at::OptionalSymIntArrayRef gts_per_image) {
  check_boxes("boxes", boxes);
  check_embeddings(embeddings, boxes);
  check_foreground(is_foreground, boxes);
  const auto offsets = image_offsets(rois_per_image, boxes);
  check_ground_truth(gt_boxes, gts_per_image.has_value(), gts_per_image ? gts_per_image->size() : 0,
                     rois_per_image.size(), boxes);
  std::vector<int64_t> gt_offsets;
  if (gt_boxes.has_value()) {
    gt_offsets = offsets_from_counts("gts_per_image", C10_AS_INTARRAYREF_SLOW(*gts_per_image),
                                     "gt_boxes", gt_boxes->size(0));
  }
  const c10::cuda::CUDAGuard guard(boxes.device());
  const Outputs out{at::empty({boxes.size(0)}, boxes.options()),
                    at::empty({boxes.size(0)}, boxes.options()),
                    at::empty({boxes.size(0)}, boxes.options())};
  if (boxes.size(0) > 0) {
    const auto run =
        boxes.scalar_type() == at::kDouble ? uncertainty_weights_double : uncertainty_weights_float;
    run(boxes.contiguous(), embeddings.contiguous(), is_foreground.contiguous(), offsets,
        {a, b, c_iou, c_sim}, contiguous(gt_boxes), gt_offsets, out);
  }
  return {out.weights, out.max_iou, out.dissimilarity};
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CUDA, m) { m.impl("uncertainty_weights", uncertainty_weights_cuda); }

}  // namespace d2_ssod
