#pragma once

#include <cmath>

#include "core/macros.h"

namespace d2_ssod {

// g(x; a, b, c) = a + (1 - a) exp(-b exp(-c x)): from about a at x = 0 to 1. Keeps NaN.
template <typename T>
D2_SSOD_HOST_DEVICE T gompertz(T x, T a, T b, T c) {
  return a + (T(1) - a) * std::exp(-b * std::exp(-c * x));
}

// Constants of Eq. 5: w = g(IoU; a, b, c_iou) g(D; 0, b, c_sim).
template <typename T>
struct WeightCurve {
  T a, b, c_iou, c_sim;

  template <typename U>
  WeightCurve<U> as() const {
    return {static_cast<U>(a), static_cast<U>(b), static_cast<U>(c_iou), static_cast<U>(c_sim)};
  }
};

template <typename T>
D2_SSOD_HOST_DEVICE T overlap_factor(T max_iou, const WeightCurve<T>& curve) {
  return gompertz(max_iou, curve.a, curve.b, curve.c_iou);
}

template <typename T>
D2_SSOD_HOST_DEVICE T dissimilarity_factor(T dissimilarity, const WeightCurve<T>& curve) {
  return gompertz(dissimilarity, T(0), curve.b, curve.c_sim);
}

}  // namespace d2_ssod
