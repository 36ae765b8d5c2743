#pragma once

#include "cuda/common/launch.cuh"

namespace d2_ssod {

// Rows of image i: begin[i] to begin[i + 1]. Travels as a kernel parameter, by value: a copy to the
// device would cost a launch, and could not be captured in a CUDA graph from pageable memory.
constexpr int kImagesPerLaunch = 64;

struct ImageTable {
  int64_t begin[kImagesPerLaunch + 1];
  int count;

  __host__ __device__ int64_t rows(int image) const { return begin[image + 1] - begin[image]; }
  __host__ __device__ int64_t total() const { return begin[count] - begin[0]; }

  // The image that holds `row`, which must lie in one.
  __device__ int find(int64_t row) const {
    int low = 0, high = count - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (begin[middle] <= row) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }
};

// Images first, first + 1, ... of `offsets` (one more number than there are `images`), as many as
// fit.
inline ImageTable make_image_table(const int64_t* offsets, int64_t images, int64_t first) {
  ImageTable table{};
  const int64_t left = images - first;
  table.count = static_cast<int>(left < kImagesPerLaunch ? left : kImagesPerLaunch);
  for (int image = 0; image <= table.count; ++image) table.begin[image] = offsets[first + image];
  return table;
}

inline int64_t largest_image(const ImageTable& table) {
  int64_t largest = 0;
  for (int image = 0; image < table.count; ++image) {
    if (table.rows(image) > largest) largest = table.rows(image);
  }
  return largest;
}

}  // namespace d2_ssod
