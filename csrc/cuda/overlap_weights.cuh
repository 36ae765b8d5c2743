#pragma once

// Eq. 2 for up to kImagesPerLaunch images. One launch against the ground truth; against the
// foreground one more, which finds it (foreground.cuh): every block needs all of it.
//
// Napkin (an H200: 4.3 TB/s, 30 T simple instructions/s): 21 R bytes, about 17 instructions a pair.
//   16 x 512, F 128: 1 M pairs -> 0.6 us; the launches take longer
//   1 x 65536, F 8192: 537 M pairs -> 0.3 ms; 1.4 MB -> 0.3 us: arithmetic

#include "core/gompertz.h"
#include "cuda/common/foreground.cuh"
#include "cuda/common/overlaps.cuh"

namespace d2_ssod {

template <typename T>
struct OverlapParameters {
  const T* boxes;                // [R, 4]
  const uint8_t* is_foreground;  // [R]
  bool has_ground_truth;         // else against the image's own foreground
  const T* gt_boxes;             // [G, 4]; null also where G is 0, so it tells nothing
  ForegroundOrder foreground;
  T* weights;  // [R]
  WeightCurve<T> curve;
  ImageTable rois, gts;
};

template <typename T>
__global__ void __launch_bounds__(kOrderThreads)
    order_rows_kernel(const __grid_constant__ OverlapParameters<T> p) {
  const int image = blockIdx.x;
  order_rows(p.is_foreground, p.rois.begin[image], p.rois.begin[image + 1], p.foreground, image,
             shared_storage<OrderStorage>());
}

// A block takes kOverlapRows rows, kOverlapLanes neighbouring lanes share one.
constexpr int kOverlapThreads = 256, kOverlapLanes = 4;
constexpr int kOverlapRows = kOverlapThreads / kOverlapLanes;

template <typename T>
struct OverlapStorage {
  Box<T> cols[kOverlapThreads];
};

template <typename T>
__global__ void __launch_bounds__(kOverlapThreads)
    overlap_weights_kernel(const __grid_constant__ OverlapParameters<T> p) {
  auto& shared = shared_storage<OverlapStorage<T>>();
  const int image = blockIdx.y, thread = threadIdx.x, lane = thread % kOverlapLanes;
  const int64_t begin = p.rois.begin[image], rows = p.rois.rows(image);
  if (static_cast<int64_t>(blockIdx.x) * kOverlapRows >= rows) return;
  const bool ground_truth = p.has_ground_truth;
  const T* references = ground_truth ? p.gt_boxes + 4 * p.gts.begin[image] : p.boxes + 4 * begin;
  const int64_t num_references =
      ground_truth ? p.gts.rows(image) : static_cast<int64_t>(p.foreground.num_foreground[image]);

  const int64_t row = static_cast<int64_t>(blockIdx.x) * kOverlapRows + thread / kOverlapLanes;
  const bool valid = row < rows;
  const Box<T> box = valid ? load_box(p.boxes + 4 * (begin + row)) : Box<T>{};
  const bool weightless = valid && !ground_truth && p.is_foreground[begin + row] != 0;
  LargestIou<T> largest;
  for (int64_t first = 0; first < num_references; first += kOverlapThreads) {
    if (first + thread < num_references) {
      const int64_t j =
          ground_truth ? first + thread : p.foreground.foreground(begin, first + thread);
      shared.cols[thread] = load_box(references + 4 * j);
    }
    __syncthreads();
    const int64_t left = num_references - first;
    const int cols = static_cast<int>(left < kOverlapThreads ? left : kOverlapThreads);
#pragma unroll 4
    for (int c = lane; c < cols; c += kOverlapLanes) {
      const T intersection = box_intersection(box, shared.cols[c]);
      largest.add(intersection, box.area + shared.cols[c].area - intersection);
    }
    __syncthreads();
  }
  T iou = lanes_max<kOverlapLanes>(largest.value());
  if (!valid || lane != 0) return;
  iou += zero_or_nan(box);
  const bool no_reference = ground_truth && num_references == 0;
  p.weights[begin + row] =
      weightless || no_reference ? 1 + zero_or_nan(iou) : overlap_factor(iou, p.curve);
}

template <typename T, typename Stream>
void launch_overlap_weights(const OverlapParameters<T>& p, Stream stream) {
  if (p.rois.total() == 0) return;
  const auto images = static_cast<unsigned>(p.rois.count);
  if (!p.has_ground_truth) {
    launch(order_rows_kernel<T>, dim3(images), kOrderThreads, sizeof(OrderStorage), stream, p);
  }
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(largest_image(p.rois), kOverlapRows)),
                  images);
  launch(overlap_weights_kernel<T>, grid, kOverlapThreads, sizeof(OverlapStorage<T>), stream, p);
}

}  // namespace d2_ssod
