#pragma once

// Similarity in float64, which the tensor cores' halves cannot give: for gradcheck and for those
// who ask for it. One warp per pair of RoIs at a time, one launch; short rather than fast (an H200
// has 34 TFLOP/s of float64, of which this reaches little: every pair reads both embeddings from
// the caches).

#include "core/cosine.h"
#include "cuda/common/images.cuh"
#include "cuda/common/primitives.cuh"

namespace d2_ssod {

constexpr int kDoubleThreads = 128;
constexpr int kDoubleWarps = kDoubleThreads / kWarpSize;

// Inner product of two embeddings, over the lanes of a warp.
__device__ inline double warp_dot(const double* x, const double* y, int64_t dimensions) {
  double sum = 0;
  for (int64_t d = threadIdx.x % kWarpSize; d < dimensions; d += kWarpSize) sum += x[d] * y[d];
  return warp_sum(sum);
}

}  // namespace d2_ssod
