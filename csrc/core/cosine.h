#pragma once

#include <cmath>

#include "core/nan.h"

namespace d2_ssod {

// Norms below it count as it, so that a zero vector has similarity 0 with everything.
constexpr double kCosineEps = 1e-8;

// 1 / max(|f|, eps), from |f|^2. NaN if |f|^2 is NaN or infinite: a vector whose squared norm
// overflows has no usable direction, and 0 would look like a valid answer.
template <typename T>
D2_SSOD_HOST_DEVICE T inverse_norm(T squared_norm, T eps = T(kCosineEps)) {
  const T norm = std::sqrt(squared_norm);
  return T(1) / (norm < eps ? eps : norm) + zero_or_nan(squared_norm);
}

// |x|, keeping NaN. The template is for vectors of numbers (see box.h).
D2_SSOD_HOST_DEVICE float magnitude(float x) { return std::abs(x); }
D2_SSOD_HOST_DEVICE double magnitude(double x) { return std::abs(x); }
template <typename T>
D2_SSOD_HOST_DEVICE T magnitude(T x) {
  return x < T{} ? -x : x;
}

// s_ij of Eq. 3: |f_i . f_j| / (|f_i| |f_j|), from the dot product of the vectors as they are.
template <typename T>
D2_SSOD_HOST_DEVICE T absolute_cosine(T dot, T inverse_norm_i, T inverse_norm_j) {
  return magnitude(dot * inverse_norm_i * inverse_norm_j);
}

// What Eq. 4 maximises over j: s_ij (1 - IoF_ij).
template <typename T>
D2_SSOD_HOST_DEVICE T visible_similarity(T similarity, T iof) {
  return similarity * (1 - iof);
}

// One pair's term of Eq. 7, y (1 - s)^2 + (1 - y) s^2 = (s - y)^2 for y in {0, 1}, and its
// derivative in the signed cosine (s = |cosine|; 0 at 0, as torch.abs has it). Y is bool, or a
// vector of 0s and 1s.
template <typename T, typename Y>
D2_SSOD_HOST_DEVICE T pair_loss(T cosine, Y similar) {
  const T difference = magnitude(cosine) - similar;
  return difference * difference;
}

template <typename T, typename Y>
D2_SSOD_HOST_DEVICE T pair_loss_derivative(T cosine, Y similar) {
  const T signed_similar = cosine > T{} ? T{} + similar : (cosine < T{} ? T{} - similar : T{});
  return 2 * (cosine - signed_similar);
}

}  // namespace d2_ssod
