#pragma once

#include "core/cosine.h"
#include "cuda/common/images.cuh"
#include "cuda/common/primitives.cuh"

namespace d2_ssod {

// Embeddings on their way to the tensor cores: multiplied by a power of two that makes their norm
// 0.5 to 1, which rounds nothing, then written as the sum of kParts halves.
//
// 1 part:  half and bfloat16 exactly (but for 2^-25); float32 rounded to 11 bits, as TF32 does it.
// 2 parts: float32 but for 2^-22 of it or 2^-25, whichever is larger. Of the four products of
//          (h_i + l_i)(h_j + l_j) the three larger ones are computed. The dropped one and the
//          rounding cost a cosine about 1e-6 at most, as the sums do.
//
// A weight changes up to 3.7 times as much as a cosine. Halves rather than bfloat16 or TF32: these
// vectors need no range, and halves have TF32's precision at twice its speed.
struct UnitVectors {
  __half* parts;  // [R, kParts, pitch], zeros from D to pitch
  float* scale;   // [R]: makes unit vectors of them; NaN if the embedding has no direction
  int64_t pitch;  // D rounded up to a multiple of kDepth
};

// Components that a block brings to shared memory at a time.
constexpr int kDepth = 32;

inline int64_t unit_vector_pitch(int64_t dimensions) {
  return ceil_div<int64_t>(dimensions, kDepth) * kDepth;
}

// How many components a lane takes at once: 4 if all rows start where 4 can be loaded at once.
template <typename T>
int components_at_once(const T* embeddings, int64_t dimensions) {
  const bool aligned = reinterpret_cast<uintptr_t>(embeddings) % (4 * sizeof(T)) == 0;
  return aligned && dimensions % 4 == 0 ? 4 : 1;
}

// The largest power of two up to x > 0; infinite for NaN.
__device__ __forceinline__ float power_of_two(float x) {
  return __int_as_float(__float_as_int(x) & 0x7f800000);
}

// One warp writes one row. Returns 1 / max(|f|, eps); NaN if f has a NaN or |f|^2 overflows.
template <int kParts, int kAtOnce, typename T>
__device__ __forceinline__ float write_unit_vector(const T* embedding, int64_t dimensions,
                                                   int64_t row, const UnitVectors& out) {
  const int64_t first = threadIdx.x % kWarpSize * kAtOnce;
  constexpr int kStep = kWarpSize * kAtOnce;
  float squared = 0;
#pragma unroll 4
  for (int64_t d = first; d < dimensions; d += kStep) {
    const auto components = *reinterpret_cast<const Vector<T, kAtOnce>*>(embedding + d);
#pragma unroll
    for (const T component : components.values) {
      squared += to_float(component) * to_float(component);
    }
  }
  squared = warp_sum(squared);
  const float inverse = inverse_norm(squared), power = power_of_two(inverse);
  float written_squared = 0;
  __half* parts = out.parts + row * kParts * out.pitch;
#pragma unroll 4
  for (int64_t d = first; d < out.pitch; d += kStep) {
    Vector<T, kAtOnce> components{};
    if (d < dimensions) components = *reinterpret_cast<const Vector<T, kAtOnce>*>(embedding + d);
    Vector<__half, kAtOnce> high, low;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float u = d < dimensions ? to_float(components.values[i]) * power : 0.0f;
      high.values[i] = __float2half_rn(u);
      float written = __half2float(high.values[i]);
      low.values[i] = __float2half_rn(u - written);
      if (kParts == 2) written += __half2float(low.values[i]);
      written_squared += written * written;
    }
    *reinterpret_cast<Vector<__half, kAtOnce>*>(parts + d) = high;
    if (kParts == 2) *reinterpret_cast<Vector<__half, kAtOnce>*>(parts + out.pitch + d) = low;
  }
  written_squared = warp_sum(written_squared);
  if (threadIdx.x % kWarpSize == 0) {
    const float length = sqrtf(squared) * inverse;
    out.scale[row] = written_squared == 0.0f ? 0.0f : length / sqrtf(written_squared);
  }
  return inverse;
}

}  // namespace d2_ssod
