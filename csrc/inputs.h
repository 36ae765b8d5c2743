#pragma once

// What comes before the kernels, once for the CPU, CUDA and Meta: the arguments are checked (all
// errors are ValueErrors in Python) and counts become offsets. Each operator has a struct of
// inputs, and a template that the dispatcher calls, whose parameter is a backend's own part; that
// of Meta, which makes shapes and dtypes alone, is nullptr. While a program is traced sizes and
// counts may be symbols, of which only sym_... functions know.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/SymBool.h>
#include <c10/core/SymInt.h>
#include <c10/core/SymIntArrayRef.h>
#include <c10/util/Exception.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "core/gompertz.h"

namespace d2_ssod {

// Whether sizes are equal. Of symbols: they are taken to be, which is checked when the program
// runs.
inline bool equal(const c10::SymInt& a, const c10::SymInt& b) {
  return a.sym_eq(b).expect_true(__FILE__, __LINE__);
}

inline void check_boxes(const char* name, const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(boxes.dim() == 2 && equal(boxes.sym_size(1), 4), name,
                    " must be a Tensor[N, 4] of (x1, y1, x2, y2), got shape ", boxes.sym_sizes());
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
  TORCH_CHECK_VALUE(tensor.dim() == 1 && equal(tensor.sym_size(0), boxes.sym_size(0)), name,
                    " must be a Tensor[", boxes.sym_size(0), "], one entry per box, got shape ",
                    tensor.sym_sizes());
  check_same_device(name, tensor, boxes);
}

inline void check_foreground(const at::Tensor& is_foreground, const at::Tensor& boxes) {
  check_per_roi("is_foreground", is_foreground, boxes);
  TORCH_CHECK_VALUE(is_foreground.scalar_type() == at::kBool, "is_foreground must be bool, got ",
                    is_foreground.scalar_type());
}

// Flags as bytes: to torch all but 0 is true, also 255 in a view of another's mask, which C++
// leaves undefined in a bool.
inline const uint8_t* flags_of(const at::Tensor& flags) {
  return static_cast<const uint8_t*>(flags.const_data_ptr());
}

inline void check_classes(const at::Tensor& classes, const at::Tensor& boxes) {
  check_per_roi("classes", classes, boxes);
  TORCH_CHECK_VALUE(classes.scalar_type() == at::kLong, "classes must be int64, got ",
                    classes.scalar_type());
}

inline void check_embeddings(const at::Tensor& embeddings, const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(embeddings.dim() == 2 && equal(embeddings.sym_size(0), boxes.sym_size(0)),
                    "embeddings must be a Tensor[", boxes.sym_size(0),
                    ", D], one row per box, got shape ", embeddings.sym_sizes());
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

// One count per image; they add up to the rows of `boxes`.
inline void check_counts(const char* name, c10::SymIntArrayRef counts, const char* boxes_name,
                         const at::Tensor& boxes) {
  const c10::SymInt total = boxes.sym_size(0);
  const auto check_sum = [&](bool right, const auto& sum) {
    TORCH_CHECK_VALUE(right, name, " must add up to the number of ", boxes_name, ", ", total,
                      ", got ", counts, " which adds up to ", sum);
  };
  for (size_t image = 0; image < counts.size(); ++image) {
    TORCH_CHECK_VALUE(counts[image].is_symbolic() || counts[image] >= 0, name, "[", image,
                      "] must not be negative, got ", counts[image]);
  }
  c10::SymInt sum = 0;
  for (const c10::SymInt& count : counts) {
    const bool are_numbers = !count.is_symbolic() && !sum.is_symbolic() && !total.is_symbolic();
    if (are_numbers) check_sum(count <= total - sum, "more");  // before a sum that may wrap
    sum += count;
  }
  check_sum(equal(sum, total), sum);
}

// Where each image's rows begin: counts.size() + 1 numbers, from 0 to the sum of counts.
inline std::vector<int64_t> offsets_of(c10::SymIntArrayRef counts) {
  std::vector<int64_t> offsets{0};
  offsets.reserve(counts.size() + 1);
  for (const int64_t count : C10_AS_INTARRAYREF_SLOW(counts)) {
    offsets.push_back(offsets.back() + count);
  }
  return offsets;
}

// gt_boxes and gts_per_image go together; the boxes are of the dtype and on the device of the RoIs.
inline void check_ground_truth(const std::optional<at::Tensor>& gt_boxes,
                               at::OptionalSymIntArrayRef gts_per_image, size_t num_images,
                               const at::Tensor& boxes) {
  TORCH_CHECK_VALUE(gt_boxes.has_value() == gts_per_image.has_value(),
                    "gt_boxes and gts_per_image go together, got only ",
                    gts_per_image.has_value() ? "gts_per_image" : "gt_boxes");
  if (!gt_boxes.has_value()) return;
  check_boxes("gt_boxes", *gt_boxes);
  check_same_device("gt_boxes", *gt_boxes, boxes);
  TORCH_CHECK_VALUE(gt_boxes->scalar_type() == boxes.scalar_type(), "gt_boxes must be ",
                    boxes.scalar_type(), " like the boxes, got ", gt_boxes->scalar_type());
  TORCH_CHECK_VALUE(gts_per_image->size() == num_images,
                    "gts_per_image must have one entry per image, ", num_images,
                    " as rois_per_image has, got ", gts_per_image->size());
  check_counts("gts_per_image", *gts_per_image, "gt_boxes", *gt_boxes);
}

// compute: boxes1 [N, 4] and boxes2 [M, 4], contiguous, to result [N, M].
template <void (*compute)(const at::Tensor&, const at::Tensor&, const at::Tensor&)>
at::Tensor pairwise_overlap(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  check_pairwise(boxes1, boxes2);
  const at::Tensor result =
      at::empty_symint({boxes1.sym_size(0), boxes2.sym_size(0)}, boxes1.options());
  if constexpr (compute != nullptr) {
    if (result.numel() > 0) compute(boxes1.contiguous(), boxes2.contiguous(), result);
  }
  return result;
}

struct GroundTruth {
  at::Tensor boxes;              // [G, 4], contiguous
  std::vector<int64_t> offsets;  // of the images' boxes
};

struct OverlapInputs {
  at::Tensor boxes;                         // [R, 4], contiguous
  at::Tensor is_foreground;                 // [R], contiguous
  std::vector<int64_t> offsets;             // of the images' rows
  std::optional<GroundTruth> ground_truth;  // none: against the image's own foreground
  WeightCurve<double> curve;

  int64_t rows() const { return boxes.size(0); }
  int64_t images() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

inline void check_overlap(const at::Tensor& boxes, const at::Tensor& is_foreground,
                          c10::SymIntArrayRef rois_per_image,
                          const std::optional<at::Tensor>& gt_boxes,
                          at::OptionalSymIntArrayRef gts_per_image) {
  check_foreground(is_foreground, boxes);
  check_counts("rois_per_image", rois_per_image, "boxes", boxes);
  check_ground_truth(gt_boxes, gts_per_image, rois_per_image.size(), boxes);
}

inline OverlapInputs overlap_inputs(const at::Tensor& boxes, const at::Tensor& is_foreground,
                                    c10::SymIntArrayRef rois_per_image,
                                    const WeightCurve<double>& curve,
                                    const std::optional<at::Tensor>& gt_boxes,
                                    at::OptionalSymIntArrayRef gts_per_image) {
  OverlapInputs inputs{boxes.contiguous(), is_foreground.contiguous(), offsets_of(rois_per_image),
                       std::nullopt, curve};
  if (gt_boxes) {
    inputs.ground_truth = GroundTruth{gt_boxes->contiguous(), offsets_of(*gts_per_image)};
  }
  return inputs;
}

// compute: to weights [R], of at least one row.
template <void (*compute)(const OverlapInputs&, const at::Tensor&)>
at::Tensor overlap_weights(const at::Tensor& boxes, const at::Tensor& is_foreground,
                           c10::SymIntArrayRef rois_per_image, double a, double b, double c,
                           const std::optional<at::Tensor>& gt_boxes,
                           at::OptionalSymIntArrayRef gts_per_image) {
  check_boxes("boxes", boxes);
  check_overlap(boxes, is_foreground, rois_per_image, gt_boxes, gts_per_image);
  const at::Tensor weights = at::empty_symint({boxes.sym_size(0)}, boxes.options());
  if constexpr (compute != nullptr) {
    if (boxes.size(0) == 0) return weights;
    const WeightCurve<double> curve{a, b, c, 0};
    compute(overlap_inputs(boxes, is_foreground, rois_per_image, curve, gt_boxes, gts_per_image),
            weights);
  }
  return weights;
}

struct UncertaintyInputs : OverlapInputs {  // ground truth: variant "released", none: "paper"
  at::Tensor embeddings;                    // [R, D], any strides
};

struct UncertaintyOutputs {
  at::Tensor weights, max_iou, dissimilarity;  // [R]
};

// compute: of at least one row.
template <void (*compute)(const UncertaintyInputs&, const UncertaintyOutputs&)>
std::tuple<at::Tensor, at::Tensor, at::Tensor> uncertainty_weights(
    const at::Tensor& boxes, const at::Tensor& embeddings, const at::Tensor& is_foreground,
    c10::SymIntArrayRef rois_per_image, double a, double b, double c_iou, double c_sim,
    const std::optional<at::Tensor>& gt_boxes, at::OptionalSymIntArrayRef gts_per_image) {
  check_boxes("boxes", boxes);
  check_embeddings(embeddings, boxes);
  check_overlap(boxes, is_foreground, rois_per_image, gt_boxes, gts_per_image);
  const auto empty = [&] { return at::empty_symint({boxes.sym_size(0)}, boxes.options()); };
  const UncertaintyOutputs outputs{empty(), empty(), empty()};
  if constexpr (compute != nullptr) {
    if (boxes.size(0) > 0) {
      const WeightCurve<double> curve{a, b, c_iou, c_sim};
      compute({overlap_inputs(boxes, is_foreground, rois_per_image, curve, gt_boxes, gts_per_image),
               embeddings},
              outputs);
    }
  }
  return {outputs.weights, outputs.max_iou, outputs.dissimilarity};
}

struct LossInputs {
  at::Tensor boxes;                   // [R, 4], contiguous
  at::Tensor embeddings;              // [R, D], any strides
  std::vector<int64_t> offsets;       // of the images' rows
  std::optional<at::Tensor> classes;  // [R], contiguous
  double iof_threshold;
  bool with_grad;

  int64_t rows() const { return boxes.size(0); }
  int64_t images() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

// compute: to loss [] and, with_grad, gradient [R, D].
template <void (*compute)(const LossInputs&, const at::Tensor&, const at::Tensor&)>
std::tuple<at::Tensor, at::Tensor> similarity_loss(
    const at::Tensor& boxes, const at::Tensor& embeddings, c10::SymIntArrayRef rois_per_image,
    double iof_threshold, const std::optional<at::Tensor>& classes, bool with_grad) {
  check_boxes("boxes", boxes);
  check_embeddings(embeddings, boxes);
  if (classes.has_value()) check_classes(*classes, boxes);
  check_iof_threshold(iof_threshold);
  check_counts("rois_per_image", rois_per_image, "boxes", boxes);
  const at::Tensor loss = at::empty({}, boxes.options());
  const at::Tensor gradient = with_grad ? at::empty_symint(embeddings.sym_sizes(), boxes.options())
                                        : at::empty({0}, boxes.options());
  if constexpr (compute != nullptr) {
    LossInputs inputs{boxes.contiguous(), embeddings,    offsets_of(rois_per_image),
                      std::nullopt,       iof_threshold, with_grad};
    if (classes.has_value()) inputs.classes = classes->contiguous();
    compute(inputs, loss, gradient);
  }
  return {loss, gradient};
}

}  // namespace d2_ssod
