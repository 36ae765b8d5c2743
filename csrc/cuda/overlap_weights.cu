#include <torch/library.h>

#include "cuda/host.h"
#include "cuda/overlap_weights.cuh"

namespace d2_ssod {
namespace {

template <typename T>
void overlap_weights_of(const at::Tensor& boxes, const at::Tensor& is_foreground,
                        const std::vector<int64_t>& offsets, const WeightCurve<double>& curve,
                        const std::optional<at::Tensor>& gt_boxes,
                        const std::vector<int64_t>& gt_offsets, const at::Tensor& weights) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t images = static_cast<int64_t>(offsets.size()) - 1;
  const auto integers = boxes.options().dtype(at::kInt);
  const at::Tensor order = at::empty({gt_boxes.has_value() ? 0 : boxes.size(0)}, integers);
  const at::Tensor num_foreground = at::empty({images}, integers);
  OverlapParameters<T> p{};
  p.boxes = boxes.const_data_ptr<T>();
  p.is_foreground = is_foreground.const_data_ptr<bool>();
  p.has_ground_truth = gt_boxes.has_value();
  p.gt_boxes = data_or_null<T>(gt_boxes);
  p.weights = weights.mutable_data_ptr<T>();
  p.curve = {static_cast<T>(curve.a), static_cast<T>(curve.b), static_cast<T>(curve.c_iou), T(0)};
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets.data(), images, first);
    if (gt_boxes.has_value()) p.gts = make_image_table(gt_offsets.data(), images, first);
    p.foreground = {order.mutable_data_ptr<int>(), num_foreground.mutable_data_ptr<int>() + first};
    launch_overlap_weights(p, stream.stream());
  }
}

// boxes [R, 4], is_foreground [R], gt_boxes [G, 4] -> weights [R]
at::Tensor overlap_weights_cuda(const at::Tensor& boxes, const at::Tensor& is_foreground,
                                c10::SymIntArrayRef rois_per_image, double a, double b, double c,
                                const std::optional<at::Tensor>& gt_boxes,
                                at::OptionalSymIntArrayRef gts_per_image) {
  check_boxes("boxes", boxes);
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
  const at::Tensor weights = at::empty({boxes.size(0)}, boxes.options());
  if (boxes.size(0) == 0) return weights;
  const auto run =
      boxes.scalar_type() == at::kDouble ? overlap_weights_of<double> : overlap_weights_of<float>;
  run(boxes.contiguous(), is_foreground.contiguous(), offsets, {a, b, c, 0.0}, contiguous(gt_boxes),
      gt_offsets, weights);
  return weights;
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CUDA, m) { m.impl("overlap_weights", overlap_weights_cuda); }

}  // namespace d2_ssod
