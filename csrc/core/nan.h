#pragma once

#include "core/macros.h"

namespace d2_ssod {

// 0, or NaN where x is NaN or infinite: what it is added to then has x's NaN. (Not a comparison and
// a selection: of those on vectors the compiler makes scalar code.)
template <typename T>
D2_SSOD_HOST_DEVICE T zero_or_nan(T x) {
  return x - x;
}

}  // namespace d2_ssod
