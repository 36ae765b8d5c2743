#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "cuda/common/host.h"
#include "cuda/similarity_loss.cuh"
#include "cuda/similarity_loss_double.cuh"

namespace d2_ssod {
namespace {

// What the parameters of both kernels have in common.
template <typename T, typename Parameters>
void set_arguments(const LossInputs& inputs, const at::Tensor& gradient, Parameters& p) {
  p.boxes = inputs.boxes.const_data_ptr<T>();
  if (inputs.classes.has_value()) p.classes = inputs.classes->const_data_ptr<int64_t>();
  if (inputs.with_grad) p.gradient = gradient.mutable_data_ptr<T>();
  p.dimensions = inputs.embeddings.size(1);
  p.batch_images = inputs.images();
  p.iof_threshold = static_cast<T>(inputs.iof_threshold);
}

LossTiling tiling_of(const LossInputs& inputs) {
  std::vector<int64_t> counts(inputs.images());
  for (int64_t image = 0; image < inputs.images(); ++image) {
    counts[image] = inputs.offsets[image + 1] - inputs.offsets[image];
  }
  return loss_tiling(counts, inputs.embeddings.size(1), inputs.with_grad);
}

void run_float(const LossInputs& inputs, const at::Tensor& loss, const at::Tensor& gradient,
               const LossTiling& tiling) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor embeddings = inputs.embeddings.contiguous();
  const int parts = unit_vector_parts(embeddings.scalar_type());
  const UnitVectorMemory units(embeddings, parts);
  const int64_t tiles_of_image = tiling.row_tiles() * tiling.col_tiles();
  const int64_t kept_rows =
      inputs.with_grad ? std::min<int64_t>(inputs.images(), kImagesPerLaunch) * tiling.chunk_rows
                       : 0;
  const at::Tensor inverse_norm = at::empty({inputs.rows()}, loss.options());
  const at::Tensor partial_loss =
      at::empty({inputs.images() * tiles_of_image}, loss.options().dtype(at::kDouble));
  const at::Tensor derivatives =
      at::empty({kept_rows * 2 * tiling.derivative_pitch()}, loss.options().dtype(at::kHalf));
  const at::Tensor projections = at::empty({kept_rows * tiling.col_tiles()}, loss.options());
  SimilarityLossParameters p{};
  set_arguments<float>(inputs, gradient, p);
  p.units = units.get();
  p.inverse_norm = inverse_norm.mutable_data_ptr<float>();
  p.derivatives = reinterpret_cast<__half*>(derivatives.mutable_data_ptr<at::Half>());
  p.projections = projections.mutable_data_ptr<float>();
  p.derivative_pitch = tiling.derivative_pitch();
  p.chunk_rows = tiling.chunk_rows;
  p.row_tiles = tiling.row_tiles();
  p.col_tiles = tiling.col_tiles();
  p.tile_cols = shape_of<PairTiles<1>>(tiling.pairs).cols;
  for_images_of_a_launch(inputs, p, [&](int64_t first) {
    p.partial_loss = partial_loss.mutable_data_ptr<double>() + first * tiles_of_image;
    dispatch_embeddings(embeddings, parts, [&](const auto* pointer, auto kParts) {
      launch_similarity_loss<kParts.value>(p, pointer, tiling, stream.stream());
    });
  });
  launch_sum(partial_loss.const_data_ptr<double>(), partial_loss.numel(),
             loss.mutable_data_ptr<float>(), stream.stream());
}

void run_double(const LossInputs& inputs, const at::Tensor& loss, const at::Tensor& gradient) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor embeddings = inputs.embeddings.contiguous();
  const at::Tensor partial_loss = at::empty({inputs.rows()}, loss.options());
  SimilarityLossDoubleParameters p{};
  set_arguments<double>(inputs, gradient, p);
  p.embeddings = embeddings.const_data_ptr<double>();
  p.partial_loss = partial_loss.mutable_data_ptr<double>();
  for_images_of_a_launch(inputs, p,
                         [&](int64_t) { launch_similarity_loss_double(p, stream.stream()); });
  launch_sum(partial_loss.const_data_ptr<double>(), partial_loss.numel(),
             loss.mutable_data_ptr<double>(), stream.stream());
}

void similarity_loss_cuda(const LossInputs& inputs, const at::Tensor& loss,
                          const at::Tensor& gradient) {
  const c10::cuda::CUDAGuard guard(loss.device());
  if (loss.scalar_type() == at::kDouble) {
    run_double(inputs, loss, gradient);
  } else {
    run_float(inputs, loss, gradient, tiling_of(inputs));
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CUDA, m) {
  m.impl("similarity_loss", similarity_loss<similarity_loss_cuda>);
}

}  // namespace d2_ssod
