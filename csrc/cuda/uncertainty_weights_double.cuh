#pragma once

#include "core/gompertz.h"
#include "cuda/common/double_precision.cuh"

namespace d2_ssod {

struct UncertaintyDoubleParameters {
  const double *boxes, *embeddings;  // [R, 4], [R, D]
  const uint8_t* is_foreground;      // [R]
  bool released;                     // variant "released", else "paper"
  const double* gt_boxes;            // [G, 4]; null also where G is 0, so it tells nothing
  int64_t dimensions;
  double *weights, *max_iou, *dissimilarity;  // [R]
  WeightCurve<double> curve;
  ImageTable rois, gts;
};

// Eq. 2-5; every warp takes a row. `fmax` passes over NaN.
__global__ void __launch_bounds__(kDoubleThreads)
    uncertainty_weights_double_kernel(const __grid_constant__ UncertaintyDoubleParameters p) {
  const int64_t row =
      p.rois.begin[0] + static_cast<int64_t>(blockIdx.x) * kDoubleWarps + threadIdx.x / kWarpSize;
  if (row >= p.rois.begin[p.rois.count]) return;
  const int image = p.rois.find(row);
  const bool foreground = p.is_foreground[row] != 0;
  const Box<double> box = load_box(p.boxes + 4 * row);
  const double* embedding = p.embeddings + row * p.dimensions;
  const double squared = warp_dot(embedding, embedding, p.dimensions),
               inverse = inverse_norm(squared);

  double iou = 0, hidden = 0, similarity = 0;
  if (p.released) {
    for (int64_t g = p.gts.begin[image]; g < p.gts.begin[image + 1]; ++g) {
      const Box<double> gt = load_box(p.gt_boxes + 4 * g);
      iou = fmax(iou, box_iou(box, gt));
      hidden = fmax(hidden, box_iof(box, gt));
    }
  }
  for (int64_t j = p.rois.begin[image]; j < p.rois.begin[image + 1]; ++j) {
    if (p.is_foreground[j] == 0) continue;
    const double* other = p.embeddings + j * p.dimensions;
    const double cosine = absolute_cosine(warp_dot(embedding, other, p.dimensions), inverse,
                                          inverse_norm(warp_dot(other, other, p.dimensions)));
    if (p.released) {
      similarity = fmax(similarity, cosine);
    } else {
      const Box<double> other_box = load_box(p.boxes + 4 * j);
      iou = fmax(iou, box_iou(box, other_box));
      similarity = fmax(similarity, visible_similarity(cosine, box_iof(box, other_box)));
    }
  }
  if (threadIdx.x % kWarpSize != 0) return;
  iou += zero_or_nan(box);
  const double own = zero_or_nan(box) + zero_or_nan(squared);
  const bool no_reference = p.released ? p.gts.rows(image) == 0 : foreground;
  const double overlap = no_reference ? 1 + zero_or_nan(iou) : overlap_factor(iou, p.curve);
  const double dissimilarity = foreground ? 1 + own : 1 - similarity * (1 - hidden) + own;
  p.max_iou[row] = iou;
  p.dissimilarity[row] = dissimilarity;
  p.weights[row] = overlap * (foreground ? 1 + own : dissimilarity_factor(dissimilarity, p.curve));
}

template <typename Stream>
void launch_uncertainty_weights_double(const UncertaintyDoubleParameters& p, Stream stream) {
  if (p.rois.total() == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(p.rois.total(), kDoubleWarps)));
  launch(uncertainty_weights_double_kernel, grid, kDoubleThreads, 0, stream, p);
}

}  // namespace d2_ssod
