#pragma once

#include "cuda/common/primitives.cuh"

namespace d2_ssod {

// The largest IoU among pairs, kept as a fraction: comparing two of them takes two products and no
// branch, where a quotient would take more than all the rest of a pair. The products are of two
// areas: exact to rounding for areas from 1e-18 to 1e18 (in float32). Beyond, where they overflow
// or vanish, the maximum may be that of another pair with an overlap, never of one without.
template <typename T>
struct LargestIou {
  T intersection = 0, denominator = 1;

  // Pairs with NaN, and those that overlap nothing, whatever their denominator, lose.
  __device__ __forceinline__ void add(T other_intersection, T other_denominator) {
    const bool larger = other_intersection * denominator > intersection * other_denominator;
    intersection = larger ? other_intersection : intersection;
    denominator = larger ? other_denominator : denominator;
  }
  __device__ __forceinline__ T value() const { return intersection / denominator; }
};

}  // namespace d2_ssod
