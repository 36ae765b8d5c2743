#include <torch/library.h>

#include "cuda/common/host.h"
#include "cuda/overlap_weights.cuh"

namespace d2_ssod {
namespace {

template <typename T>
void run(const OverlapInputs& inputs, const at::Tensor& weights) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const bool has_ground_truth = inputs.ground_truth.has_value();
  const at::Tensor integers = at::empty({inputs.images() + (has_ground_truth ? 0 : inputs.rows())},
                                        weights.options().dtype(at::kInt));
  int* const num_foreground = integers.mutable_data_ptr<int>();
  OverlapParameters<T> p{};
  p.boxes = inputs.boxes.const_data_ptr<T>();
  p.is_foreground = flags_of(inputs.is_foreground);
  p.has_ground_truth = has_ground_truth;
  if (has_ground_truth) p.gt_boxes = inputs.ground_truth->boxes.const_data_ptr<T>();
  p.weights = weights.mutable_data_ptr<T>();
  p.curve = inputs.curve.as<T>();
  for_images_of_a_launch(inputs, p, [&](int64_t first) {
    p.foreground = {num_foreground + inputs.images(), num_foreground + first};
    launch_overlap_weights(p, stream.stream());
  });
}

void overlap_weights_cuda(const OverlapInputs& inputs, const at::Tensor& weights) {
  const c10::cuda::CUDAGuard guard(weights.device());
  (weights.scalar_type() == at::kDouble ? run<double> : run<float>)(inputs, weights);
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CUDA, m) {
  m.impl("overlap_weights", overlap_weights<overlap_weights_cuda>);
}

}  // namespace d2_ssod
