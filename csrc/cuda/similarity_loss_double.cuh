#pragma once

#include "cuda/common/double_precision.cuh"

namespace d2_ssod {

struct SimilarityLossDoubleParameters {
  const double *boxes, *embeddings;  // [R, 4], [R, D]
  const int64_t* classes;            // [R]; may be null
  double* gradient;                  // [R, D]; null: the loss alone
  double* partial_loss;              // [R]
  int64_t dimensions, batch_images;
  double iof_threshold;
  ImageTable rois;
};

struct LossDoubleStorage {
  double losses[kDoubleWarps], projections[kDoubleWarps];
  double derivatives[kDoubleWarps];  // G_ij / |f_j|
};

// Eq. 7 and its derivative (see similarity_loss.cuh); every block takes a row i, every warp every
// kDoubleWarps-th column j.
__global__ void __launch_bounds__(kDoubleThreads)
    similarity_loss_double_kernel(const __grid_constant__ SimilarityLossDoubleParameters p) {
  auto& shared = shared_storage<LossDoubleStorage>();
  const int warp = threadIdx.x / kWarpSize;
  const int64_t row = p.rois.begin[0] + blockIdx.x, image = p.rois.find(row);
  const int64_t begin = p.rois.begin[image], end = p.rois.begin[image + 1];
  const Box<double> box = load_box(p.boxes + 4 * row);
  const double* embedding = p.embeddings + row * p.dimensions;
  const double inverse = inverse_norm(warp_dot(embedding, embedding, p.dimensions));
  double* gradient = p.gradient == nullptr ? nullptr : p.gradient + row * p.dimensions;

  double loss = 0, projection = 0;
  for (int64_t first = begin; first < end; first += kDoubleWarps) {
    const int64_t j = first + warp;
    double derivative = 0;
    if (j < end) {
      const double* other = p.embeddings + j * p.dimensions;
      const double other_inverse = inverse_norm(warp_dot(other, other, p.dimensions));
      const double cosine = warp_dot(embedding, other, p.dimensions) * inverse * other_inverse;
      const Box<double> other_box = load_box(p.boxes + 4 * j);
      const bool one_class =
          p.classes != nullptr && p.classes[row] >= 0 && p.classes[row] == p.classes[j];
      const bool target = box_inside(box, other_box, p.iof_threshold) || one_class;
      loss += pair_loss(cosine, target) + zero_or_nan(box);
      derivative = pair_loss_derivative(cosine, target);
      projection += derivative * cosine;
      derivative *= other_inverse;
    }
    if (gradient == nullptr) continue;
    if (threadIdx.x % kWarpSize == 0) shared.derivatives[warp] = derivative;
    __syncthreads();
    for (int64_t d = threadIdx.x; d < p.dimensions; d += kDoubleThreads) {
      double sum = first == begin ? 0 : gradient[d];
      for (int w = 0; w < kDoubleWarps && first + w < end; ++w) {
        sum += shared.derivatives[w] * p.embeddings[(first + w) * p.dimensions + d];
      }
      gradient[d] = sum;
    }
    __syncthreads();
  }
  if (threadIdx.x % kWarpSize == 0) {
    shared.losses[warp] = loss;
    shared.projections[warp] = projection;
  }
  __syncthreads();
  loss = projection = 0;
  for (int w = 0; w < kDoubleWarps; ++w) {
    loss += shared.losses[w];
    projection += shared.projections[w];
  }
  const double rows = static_cast<double>(end - begin);
  const double mean = 1 / (rows * rows * static_cast<double>(p.batch_images));
  if (threadIdx.x == 0) p.partial_loss[row] = loss * mean;
  if (gradient == nullptr) return;
  // Below eps the norm counts as eps and does not depend on the vector.
  if (inverse >= inverse_norm(0.0)) projection = 0;
  for (int64_t d = threadIdx.x; d < p.dimensions; d += kDoubleThreads) {
    gradient[d] = (gradient[d] - projection * embedding[d] * inverse) * (2 * inverse * mean);
  }
}

template <typename Stream>
void launch_similarity_loss_double(const SimilarityLossDoubleParameters& p, Stream stream) {
  if (p.rois.total() == 0) return;
  const dim3 grid(static_cast<unsigned>(p.rois.total()));
  launch(similarity_loss_double_kernel, grid, kDoubleThreads, sizeof(LossDoubleStorage), stream, p);
}

}  // namespace d2_ssod
