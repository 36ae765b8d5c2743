#pragma once

#include "core/cosine.h"
#include "cuda/images.cuh"
#include "cuda/primitives.cuh"

namespace d2_ssod {

// Embeddings on their way to the tensor cores: divided by their norm, then written as the sum of
// kParts halves.
//
// 1 part:  u = h + e, |e| <= 2^-11 |u|: what half, bfloat16 and TF32 promise anyway.
// 2 parts: u = h + l + e, |e| <= 2^-22 |u| or 2^-25, whichever is larger. Of the four products of
// (h_i + l_i)(h_j + l_j)
//          the three larger ones are computed: the dropped one and e cost a cosine no more than
//          about 1e-6, next to 1e-7 sqrt(D) of plain float32 sums. A weight changes at most 3.7
//          times as much as a cosine.
//
// Halves rather than bfloat16 or TF32: components of unit vectors need no range, halves have TF32's
// precision at twice its speed, and a vector is normalised before anything can overflow.
struct UnitVectors {
  __half* parts;  // [R, kParts, pitch], zeros from D to pitch
  float* scale;   // [R]: length of u over that of its parts, near 1; NaN if the embedding has no
                  // direction
  int64_t pitch;  // D rounded up to a multiple of kDepth
};

// Components that a block brings to shared memory at a time.
constexpr int kDepth = 32;

inline int64_t unit_vector_pitch(int64_t dimensions) {
  return ceil_div<int64_t>(dimensions, kDepth) * kDepth;
}

// One warp writes one row. Returns 1 / max(|f|, eps), NaN if f has a NaN or its squared norm
// overflows.
template <int kParts, typename T>
__device__ __forceinline__ float write_unit_vector(const T* embedding, int64_t dimensions,
                                                   int64_t row, const UnitVectors& out) {
  const int lane = threadIdx.x % kWarpSize;
  float squared = 0;
#pragma unroll 4
  for (int64_t d = lane; d < dimensions; d += kWarpSize) {
    const float x = to_float(embedding[d]);
    squared += x * x;
  }
  squared = warp_sum(squared);
  const float inverse = inverse_norm(squared);
  float written_squared = 0;
  __half* parts = out.parts + row * kParts * out.pitch;
#pragma unroll 4
  for (int64_t d = lane; d < out.pitch; d += kWarpSize) {
    const float u = d < dimensions ? to_float(embedding[d]) * inverse : 0.0f;
    const __half high = __float2half_rn(u);
    parts[d] = high;
    float written = __half2float(high);
    if (kParts == 2) {
      const __half low = __float2half_rn(u - written);
      parts[out.pitch + d] = low;
      written += __half2float(low);
    }
    written_squared += written * written;
  }
  written_squared = warp_sum(written_squared);
  if (lane == 0) {
    const float length = sqrtf(squared) * inverse;
    out.scale[row] = written_squared == 0.0f ? 0.0f : length / sqrtf(written_squared);
  }
  return inverse;
}

}  // namespace d2_ssod
