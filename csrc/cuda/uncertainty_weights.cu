#include <torch/library.h>

#include "cuda/common/host.h"
#include "cuda/uncertainty_weights.cuh"
#include "cuda/uncertainty_weights_double.cuh"

namespace d2_ssod {
namespace {

// What the parameters of both kernels have in common.
template <typename T, typename Parameters>
void set_pointers(const UncertaintyInputs& inputs, const UncertaintyOutputs& outputs,
                  Parameters& p) {
  p.boxes = inputs.boxes.const_data_ptr<T>();
  p.is_foreground = flags_of(inputs.is_foreground);
  p.released = inputs.ground_truth.has_value();
  if (p.released) p.gt_boxes = inputs.ground_truth->boxes.template const_data_ptr<T>();
  p.weights = outputs.weights.mutable_data_ptr<T>();
  p.max_iou = outputs.max_iou.mutable_data_ptr<T>();
  p.dissimilarity = outputs.dissimilarity.mutable_data_ptr<T>();
  p.curve = inputs.curve.as<T>();
}

void run_float(const UncertaintyInputs& inputs, const UncertaintyOutputs& outputs,
               const Tiling& tiling) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor embeddings = inputs.embeddings.contiguous();
  const int parts = unit_vector_parts(embeddings.scalar_type());
  const int64_t rows = inputs.rows(), images = inputs.images();
  const UnitVectorMemory units(embeddings, parts);
  // Every allocation costs the CPU a microsecond: one for all that has 4 bytes.
  const at::Tensor numbers =
      at::empty({3 * rows + images}, outputs.weights.options().dtype(at::kInt));
  int* const order = numbers.mutable_data_ptr<int>();
  UncertaintyParameters p{};
  set_pointers<float>(inputs, outputs, p);
  p.units = units.get();
  p.arrivals = order + rows;
  p.hidden = reinterpret_cast<float*>(order + 2 * rows);
  for_images_of_a_launch(inputs, p, [&](int64_t first) {
    p.foreground = {order, order + 3 * rows + first};
    dispatch_embeddings(embeddings, parts, [&](const auto* pointer, auto kParts) {
      launch_uncertainty_weights<kParts.value>(p, pointer, embeddings.size(1), tiling,
                                               stream.stream());
    });
  });
}

void run_double(const UncertaintyInputs& inputs, const UncertaintyOutputs& outputs) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor embeddings = inputs.embeddings.contiguous();
  UncertaintyDoubleParameters p{};
  set_pointers<double>(inputs, outputs, p);
  p.embeddings = embeddings.const_data_ptr<double>();
  p.dimensions = embeddings.size(1);
  for_images_of_a_launch(inputs, p,
                         [&](int64_t) { launch_uncertainty_weights_double(p, stream.stream()); });
}

void uncertainty_weights_cuda(const UncertaintyInputs& inputs, const UncertaintyOutputs& outputs) {
  const c10::cuda::CUDAGuard guard(inputs.boxes.device());
  if (inputs.boxes.scalar_type() == at::kDouble) {
    run_double(inputs, outputs);
  } else {
    run_float(inputs, outputs, Tiling());
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CUDA, m) {
  m.impl("uncertainty_weights", uncertainty_weights<uncertainty_weights_cuda>);
}

}  // namespace d2_ssod
