// Every operator's schema, and the kernels of meta tensors, which torch.compile and torch.export
// trace with. Other kernels: cpu/ and cuda/. Autograd and autocast rules:
// d2_ssod/ops/_registrations.py. Meaning, units, errors: the public functions of d2_ssod/ops.
//
// What all operators share:
// - Boxes are Tensor[R, 4] of (x1, y1, x2, y2), float32 or float64, any strides. The public
//   functions turn half and bfloat16 boxes into float32: a coordinate above 2048 has no half.
// - Embeddings are Tensor[R, D]: float64 with float64 boxes; half, bfloat16 or float32 with float32
//   boxes, accumulated in float32. Results have the dtype of the boxes, so float32 or float64.
// - The RoIs of all images lie one after another; rois_per_image says where one ends. Pairs never
//   cross images. It is SymInt[] so that torch.compile does not recompile when the counts change.
// - NaN: a row (RoI) whose own box or embedding has a NaN has NaN results. A maximum over pairs
//   ignores the pairs that are NaN because of the other RoI.
#include <torch/library.h>

#include "inputs.h"

TORCH_LIBRARY(d2_ssod, m) {
  // torch.compile may take them as they are: they have meta kernels, and no side effects.
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};

  // [N, M]: NaN where either box has a NaN.
  m.def("pairwise_iou(Tensor boxes1, Tensor boxes2) -> Tensor", tags);
  m.def("pairwise_iof(Tensor boxes1, Tensor boxes2) -> Tensor", tags);

  // With gt_boxes [G, 4] (and gts_per_image): against those, all rows. Without: against the image's
  // own foreground rows, foreground weight 1.
  m.def(
      "overlap_weights(Tensor boxes, Tensor is_foreground, SymInt[] rois_per_image, "
      "float a, float b, float c, Tensor? gt_boxes, SymInt[]? gts_per_image) -> Tensor",
      tags);

  // With gt_boxes: variant "released"; without: "paper". Three Tensor[R]. Foreground rows have
  // dissimilarity 1, and without gt_boxes weight 1 and max_iou 1 (their own box; 0 if it is
  // degenerate).
  m.def(
      "uncertainty_weights(Tensor boxes, Tensor embeddings, Tensor is_foreground, "
      "SymInt[] rois_per_image, float a, float b, float c_iou, float c_sim, "
      "Tensor? gt_boxes, SymInt[]? gts_per_image) "
      "-> (Tensor weights, Tensor max_iou, Tensor dissimilarity)",
      tags);

  // loss: Tensor[], grad_embeddings: its derivative, Tensor[R, D] of the dtype of the boxes (so
  // that small gradients of half embeddings survive until they are scaled), made in the same pass
  // if with_grad, else Tensor[0]. The mean is over all of rois_per_image, images without RoIs
  // counting as 0.
  m.def(
      "similarity_loss(Tensor boxes, Tensor embeddings, SymInt[] rois_per_image, "
      "float iof_threshold, Tensor? classes, bool with_grad) -> (Tensor loss, Tensor "
      "grad_embeddings)",
      tags);
}

namespace d2_ssod {

TORCH_LIBRARY_IMPL(d2_ssod, Meta, m) {
  m.impl("pairwise_iou", pairwise_overlap<nullptr>);
  m.impl("pairwise_iof", pairwise_overlap<nullptr>);
  m.impl("overlap_weights", overlap_weights<nullptr>);
  m.impl("uncertainty_weights", uncertainty_weights<nullptr>);
  m.impl("similarity_loss", similarity_loss<nullptr>);
}

}  // namespace d2_ssod
