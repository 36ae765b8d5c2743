#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "cuda/host.h"
#include "cuda/similarity_loss.cuh"
#include "cuda/similarity_loss_double.cuh"

namespace d2_ssod {
namespace {

// `gradient` may be empty: then only the loss is wanted.
void similarity_loss_float(const at::Tensor& boxes, const at::Tensor& embeddings,
                           const std::vector<int64_t>& offsets, double iof_threshold,
                           const std::optional<at::Tensor>& classes, const at::Tensor& loss,
                           const at::Tensor& gradient) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t images = static_cast<int64_t>(offsets.size()) - 1;
  int64_t largest = 0;
  for (int64_t i = 0; i < images; ++i) largest = std::max(largest, offsets[i + 1] - offsets[i]);
  const int64_t row_tiles = loss_row_tiles(largest);
  const int parts = unit_vector_parts(embeddings.scalar_type());
  const UnitVectorMemory units(embeddings, parts);
  const at::Tensor inverse_norm = at::empty({boxes.size(0)}, boxes.options());
  const at::Tensor partial_loss =
      at::empty({images, row_tiles}, boxes.options().dtype(at::kDouble));

  SimilarityLossParameters p{};
  p.boxes = boxes.const_data_ptr<float>();
  p.classes = data_or_null<int64_t>(classes);
  p.units = units.get();
  p.inverse_norm = inverse_norm.mutable_data_ptr<float>();
  p.gradient = gradient.numel() > 0 ? gradient.mutable_data_ptr<float>() : nullptr;
  p.dimensions = embeddings.size(1);
  p.batch_images = images;
  p.iof_threshold = static_cast<float>(iof_threshold);
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets.data(), images, first);
    p.partial_loss = partial_loss.mutable_data_ptr<double>() + first * row_tiles;
    dispatch_embeddings(embeddings, parts, [&](const auto* pointer, auto kParts) {
      launch_similarity_loss<kParts.value>(p, pointer, row_tiles, stream.stream());
    });
  }
  launch_sum(partial_loss.const_data_ptr<double>(), partial_loss.numel(),
             loss.mutable_data_ptr<float>(), stream.stream());
}

void similarity_loss_double(const at::Tensor& boxes, const at::Tensor& embeddings,
                            const std::vector<int64_t>& offsets, double iof_threshold,
                            const std::optional<at::Tensor>& classes, const at::Tensor& loss,
                            const at::Tensor& gradient) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t images = static_cast<int64_t>(offsets.size()) - 1;
  const at::Tensor partial_loss = at::empty({boxes.size(0)}, boxes.options());
  SimilarityLossDoubleParameters p{};
  p.boxes = boxes.const_data_ptr<double>();
  p.embeddings = embeddings.const_data_ptr<double>();
  p.classes = data_or_null<int64_t>(classes);
  p.gradient = gradient.numel() > 0 ? gradient.mutable_data_ptr<double>() : nullptr;
  p.partial_loss = partial_loss.mutable_data_ptr<double>();
  p.dimensions = embeddings.size(1);
  p.batch_images = images;
  p.iof_threshold = iof_threshold;
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets.data(), images, first);
    launch_similarity_loss_double(p, stream.stream());
  }
  launch_sum(partial_loss.const_data_ptr<double>(), partial_loss.numel(),
             loss.mutable_data_ptr<double>(), stream.stream());
}

// boxes [R, 4], embeddings [R, D], classes [R] -> loss [], gradient [R, D] (or [0])
std::tuple<at::Tensor, at::Tensor> similarity_loss_cuda(
    const at::Tensor& boxes, const at::Tensor& embeddings, c10::SymIntArrayRef rois_per_image,
    double iof_threshold, const std::optional<at::Tensor>& classes, bool with_grad) {
  check_boxes("boxes", boxes);
  check_embeddings(embeddings, boxes);
  const auto offsets = image_offsets(rois_per_image, boxes);
  if (classes.has_value()) check_classes(*classes, boxes);
  check_iof_threshold(iof_threshold);
  const c10::cuda::CUDAGuard guard(boxes.device());
  const at::Tensor gradient =
      with_grad ? at::empty(embeddings.sizes(), boxes.options()) : at::empty({0}, boxes.options());
  if (boxes.size(0) == 0) return {at::zeros({}, boxes.options()), gradient};
  const at::Tensor loss = at::empty({}, boxes.options());
  const auto run =
      boxes.scalar_type() == at::kDouble ? similarity_loss_double : similarity_loss_float;
  run(boxes.contiguous(), embeddings.contiguous(), offsets, iof_threshold, contiguous(classes),
      loss, gradient);
  return {loss, gradient};
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CUDA, m) { m.impl("similarity_loss", similarity_loss_cuda); }

}  // namespace d2_ssod
