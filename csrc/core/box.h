#pragma once

#include "core/nan.h"

namespace d2_ssod {

// An axis-aligned box, XYXY, absolute pixels, and its area (0 if degenerate or inverted). T is
// float, double or, on the CPU, a vector of them (one box per lane): hence T{} for 0, and
// selections rather than branches.
//
// NaN: the area is NaN if any coordinate is. Overlaps of (i, j) are NaN if either box has a NaN:
// that of i comes in through its area, that of j through its coordinates, because `lower` and
// `upper` return their second argument when either is NaN (as minps and maxps do, so it costs
// nothing).
template <typename T>
struct Box {
  T x1, y1, x2, y2, area;
};

template <typename T>
D2_SSOD_HOST_DEVICE T lower(T a, T b) {
  return a < b ? a : b;
}

template <typename T>
D2_SSOD_HOST_DEVICE T upper(T a, T b) {
  return a > b ? a : b;
}

// max(x, 0) that keeps NaN.
template <typename T>
D2_SSOD_HOST_DEVICE T positive_part(T x) {
  return upper(T{}, x);
}

template <typename T>
D2_SSOD_HOST_DEVICE T box_area(T x1, T y1, T x2, T y2) {
  return positive_part(x2 - x1) * positive_part(y2 - y1);
}

template <typename T>
D2_SSOD_HOST_DEVICE Box<T> make_box(T x1, T y1, T x2, T y2) {
  return {x1, y1, x2, y2, box_area(x1, y1, x2, y2)};
}

// `coordinates` points at 4 contiguous numbers.
template <typename T>
D2_SSOD_HOST_DEVICE Box<T> load_box(const T* coordinates) {
  return make_box(coordinates[0], coordinates[1], coordinates[2], coordinates[3]);
}

// Added to what belongs to the box: NaN if the box has one.
template <typename T>
D2_SSOD_HOST_DEVICE T zero_or_nan(const Box<T>& box) {
  return zero_or_nan(box.area);
}

// Area of i ∩ j; 0 where a box is degenerate or inverted, or where they only touch.
template <typename T>
D2_SSOD_HOST_DEVICE T box_intersection(const Box<T>& i, const Box<T>& j) {
  const T width = lower(i.x2, j.x2) - upper(i.x1, j.x1);
  const T height = lower(i.y2, j.y2) - upper(i.y1, j.y1);
  return positive_part(width) * positive_part(height);
}

// x, or 1 where x is 0: the numerator is 0 there too, and the quotient is then 0 rather than NaN.
template <typename T>
D2_SSOD_HOST_DEVICE T nonzero(T x) {
  return x <= T{} ? T{} + 1 : x;
}

// Denominator of the IoU.
template <typename T>
D2_SSOD_HOST_DEVICE T box_union(T area_i, T area_j, T intersection) {
  return nonzero(area_i + area_j - intersection);
}

template <typename T>
D2_SSOD_HOST_DEVICE T box_iou(const Box<T>& i, const Box<T>& j) {
  const T intersection = box_intersection(i, j);
  return intersection / box_union(i.area, j.area, intersection);
}

// Whether IoF_ij > threshold or IoF_ji > threshold, without a quotient; threshold >= 0. A vector of
// lanes' masks where T is one; false where a box has a NaN.
template <typename T>
D2_SSOD_HOST_DEVICE auto box_inside(const Box<T>& i, const Box<T>& j, T threshold) {
  return box_intersection(i, j) > threshold * lower(i.area, j.area);
}

// area(i ∩ j) / area(i): 1 for a small box i inside a big box j.
template <typename T>
D2_SSOD_HOST_DEVICE T box_iof(const Box<T>& i, const Box<T>& j) {
  return box_intersection(i, j) / nonzero(i.area);
}

}  // namespace d2_ssod
