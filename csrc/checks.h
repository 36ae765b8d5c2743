#pragma once

// The error messages, shared by the CPU and the CUDA kernels. All are ValueErrors in Python.

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <optional>
#include <vector>

namespace d2_ssod {

inline void check_boxes(const char* name, const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(boxes.dim() == 2 && boxes.size(1) == 4, name,
                    " must be a Tensor[N, 4] of (x1, y1, x2, y2), got shape ", boxes.sizes());
  TORCH_CHECK_VALUE(boxes.scalar_type() == at::kFloat || boxes.scalar_type() == at::kDouble, name,
                    " must be float32 or float64, got ", boxes.scalar_type());
}

inline void check_same_device(const char* name, const at::Tensor& tensor, const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(tensor.device() == boxes.device(), name, " must be on ", boxes.device(),
                    " like the boxes, got ", tensor.device());
}

inline void check_pairwise(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  check_boxes("boxes1", boxes1);
  check_boxes("boxes2", boxes2);
  check_same_device("boxes2", boxes2, boxes1);
  TORCH_CHECK_VALUE(boxes1.scalar_type() == boxes2.scalar_type(),
                    "boxes1 and boxes2 must have the ", "same dtype, got ", boxes1.scalar_type(),
                    " and ", boxes2.scalar_type());
}

// One entry per RoI.
inline void check_per_roi(const char* name, const at::Tensor& tensor, const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(tensor.dim() == 1 && tensor.size(0) == boxes.size(0), name,
                    " must be a Tensor[", boxes.size(0), "], one entry per box, got shape ",
                    tensor.sizes());
  check_same_device(name, tensor, boxes);
}

inline void check_foreground(const at::Tensor& is_foreground, const at::Tensor& boxes) {
  check_per_roi("is_foreground", is_foreground, boxes);
  TORCH_CHECK_VALUE(is_foreground.scalar_type() == at::kBool, "is_foreground must be bool, got ",
                    is_foreground.scalar_type());
}

inline void check_classes(const at::Tensor& classes, const at::Tensor& boxes) {
  check_per_roi("classes", classes, boxes);
  TORCH_CHECK_VALUE(classes.scalar_type() == at::kLong, "classes must be int64, got ",
                    classes.scalar_type());
}

inline void check_embeddings(const at::Tensor& embeddings, const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(embeddings.dim() == 2 && embeddings.size(0) == boxes.size(0),
                    "embeddings must be a Tensor[", boxes.size(0),
                    ", D], one row per box, got shape ", embeddings.sizes());
  check_same_device("embeddings", embeddings, boxes);
  const auto dtype = embeddings.scalar_type();
  if (boxes.scalar_type() == at::kDouble) {
    TORCH_CHECK_VALUE(dtype == at::kDouble, "embeddings must be float64 like the boxes, got ",
                      dtype);
  } else {
    TORCH_CHECK_VALUE(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
                      "embeddings must be float32, float16 or bfloat16 with float32 boxes, got ",
                      dtype);
  }
}

inline void check_iof_threshold(double iof_threshold) {
  TORCH_CHECK_VALUE(iof_threshold >= 0 && iof_threshold <= 1, "iof_threshold must be in 0..1, got ",
                    iof_threshold);
}

// Where each image's rows begin: counts.size() + 1 numbers, from 0 to `total`.
inline std::vector<int64_t> offsets_from_counts(const char* name, at::IntArrayRef counts,
                                                const char* total_name, int64_t total) {
  for (size_t image = 0; image < counts.size(); ++image) {
    TORCH_CHECK_VALUE(counts[image] >= 0, name, "[", image, "] must not be negative, got ",
                      counts[image]);
  }
  const auto check_sum = [&](bool right, auto sum) {
    TORCH_CHECK_VALUE(right, name, " must add up to the number of ", total_name, ", ", total,
                      ", got ", counts, " which adds up to ", sum);
  };
  std::vector<int64_t> offsets(counts.size() + 1, 0);
  for (size_t image = 0; image < counts.size(); ++image) {
    check_sum(counts[image] <= total - offsets[image], "more");  // before a sum that may wrap
    offsets[image + 1] = offsets[image] + counts[image];
  }
  check_sum(offsets.back() == total, offsets.back());
  return offsets;
}

// gt_boxes and gts_per_image go together; the boxes are of the dtype and on the device of the RoIs.
inline void check_ground_truth(const std::optional<at::Tensor>& gt_boxes, bool has_gts_per_image,
                               size_t gts_per_image_size, size_t num_images,
                               const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(gt_boxes.has_value() == has_gts_per_image,
                    "gt_boxes and gts_per_image go together, got only ",
                    has_gts_per_image ? "gts_per_image" : "gt_boxes");
  if (!gt_boxes.has_value()) return;
  check_boxes("gt_boxes", *gt_boxes);
  check_same_device("gt_boxes", *gt_boxes, boxes);
  TORCH_CHECK_VALUE(gt_boxes->scalar_type() == boxes.scalar_type(), "gt_boxes must be ",
                    boxes.scalar_type(), " like the boxes, got ", gt_boxes->scalar_type());
  TORCH_CHECK_VALUE(gts_per_image_size == num_images,
                    "gts_per_image must have one entry per image, ", num_images,
                    " as rois_per_image has, got ", gts_per_image_size);
}

}  // namespace d2_ssod
