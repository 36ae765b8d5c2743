#include <torch/library.h>

#include "cuda/common/host.h"
#include "cuda/pairwise_overlap.cuh"

namespace d2_ssod {
namespace {

template <typename Overlap, typename T>
void run(const at::Tensor& boxes1, const at::Tensor& boxes2, const at::Tensor& result) {
  launch_pairwise_overlap<Overlap>(boxes1.const_data_ptr<T>(), boxes2.const_data_ptr<T>(),
                                   result.mutable_data_ptr<T>(), boxes1.size(0), boxes2.size(0),
                                   c10::cuda::getCurrentCUDAStream().stream());
}

template <typename Overlap>
void pairwise_overlap_cuda(const at::Tensor& boxes1, const at::Tensor& boxes2,
                           const at::Tensor& result) {
  const c10::cuda::CUDAGuard guard(result.device());
  (result.scalar_type() == at::kDouble ? run<Overlap, double> : run<Overlap, float>)(boxes1, boxes2,
                                                                                     result);
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CUDA, m) {
  m.impl("pairwise_iou", pairwise_overlap<pairwise_overlap_cuda<IouOf>>);
  m.impl("pairwise_iof", pairwise_overlap<pairwise_overlap_cuda<IofOf>>);
}

}  // namespace d2_ssod
