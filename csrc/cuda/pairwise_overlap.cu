#include <torch/library.h>

#include "cuda/host.h"
#include "cuda/pairwise_overlap.cuh"

namespace d2_ssod {
namespace {

template <typename Overlap, typename T>
void pairwise_overlap_of(const at::Tensor& boxes1, const at::Tensor& boxes2,
                         const at::Tensor& result) {
  launch_pairwise_overlap<Overlap>(boxes1.const_data_ptr<T>(), boxes2.const_data_ptr<T>(),
                                   result.mutable_data_ptr<T>(), boxes1.size(0), boxes2.size(0),
                                   c10::cuda::getCurrentCUDAStream().stream());
}

// boxes1 [N, 4], boxes2 [M, 4] -> [N, M]
template <typename Overlap>
at::Tensor pairwise_overlap_cuda(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  check_pairwise(boxes1, boxes2);
  const c10::cuda::CUDAGuard guard(boxes1.device());
  const at::Tensor result = at::empty({boxes1.size(0), boxes2.size(0)}, boxes1.options());
  const auto run = boxes1.scalar_type() == at::kDouble ? pairwise_overlap_of<Overlap, double>
                                                       : pairwise_overlap_of<Overlap, float>;
  run(boxes1.contiguous(), boxes2.contiguous(), result);
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CUDA, m) {
  m.impl("pairwise_iou", pairwise_overlap_cuda<IouOf>);
  m.impl("pairwise_iof", pairwise_overlap_cuda<IofOf>);
}

}  // namespace d2_ssod
