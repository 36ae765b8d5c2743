#pragma once

// What the launchers share. Narrow includes: torch/extension.h would take a minute and a half per
// file.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <type_traits>

#include "cuda/common/images.cuh"
#include "cuda/common/unit_vectors.cuh"
#include "inputs.h"

namespace d2_ssod {

// Calls launch(first) with p.rois, and p.gts where there is ground truth, set to images first,
// first + 1, ... of the batch, as many as one launch takes. The kernels number the rows of one
// image in 32 bits.
template <typename Inputs, typename Parameters, typename Launch>
void for_images_of_a_launch(const Inputs& inputs, Parameters& p, const Launch& launch) {
  for (int64_t first = 0; first < inputs.images(); first += kImagesPerLaunch) {
    p.rois = make_image_table(inputs.offsets.data(), inputs.images(), first);
    const int64_t largest = largest_image(p.rois);
    TORCH_CHECK_VALUE(largest <= 1 << 30, "rois_per_image must be at most 2^30 on CUDA, got ",
                      largest);
    if constexpr (std::is_base_of_v<OverlapInputs, Inputs>) {
      if (inputs.ground_truth.has_value()) {
        p.gts = make_image_table(inputs.ground_truth->offsets.data(), inputs.images(), first);
      }
    }
    launch(first);
  }
}

// Whether float32 products may be rounded to TF32. torch has learnt to say so in three ways: since
// 2.9 by float32Precision, first of names, then of enumerations, and before by allowTF32CuBLAS,
// which now raises once the user has set `fp32_precision`. The types come from the member itself,
// since older headers do not declare them.
template <typename Context, typename Precision, typename Backend, typename Operation>
bool is_tf32(const Context& context, Precision (Context::*precision)(Backend, Operation) const) {
  if constexpr (std::is_enum_v<Precision>) {
    return (context.*precision)(Backend::CUDA, Operation::MATMUL) == Precision::TF32;
  } else {
    return (context.*precision)("cuda", "matmul") == "tf32";
  }
}

template <typename Context>
auto allows_tf32(const Context& context, int)
    -> decltype(is_tf32(context, &Context::float32Precision)) {
  return is_tf32(context, &Context::float32Precision);
}

template <typename Context>
bool allows_tf32(const Context& context, long) {  // where the one above does not compile
  return context.allowTF32CuBLAS();
}

// How many halves stand for a component (unit_vectors.cuh): one for TF32, if the user allowed it.
inline int unit_vector_parts(at::ScalarType embeddings) {
  return embeddings == at::kFloat && !allows_tf32(at::globalContext(), 0) ? 2 : 1;
}

// Memory for the unit vectors of `embeddings`; it lives as long as this.
class UnitVectorMemory {
 public:
  UnitVectorMemory(const at::Tensor& embeddings, int parts)
      : pitch_(unit_vector_pitch(embeddings.size(1))),
        parts_(
            at::empty({embeddings.size(0), parts, pitch_}, embeddings.options().dtype(at::kHalf))),
        scale_(at::empty({embeddings.size(0)}, embeddings.options().dtype(at::kFloat))) {}

  UnitVectors get() const {
    return {reinterpret_cast<__half*>(parts_.mutable_data_ptr<at::Half>()),
            scale_.mutable_data_ptr<float>(), pitch_};
  }

 private:
  int64_t pitch_;
  at::Tensor parts_, scale_;
};

// Calls function(pointer to the embeddings' own type, std::integral_constant of the number of
// parts).
template <typename Function>
void dispatch_embeddings(const at::Tensor& embeddings, int parts, const Function& function) {
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  switch (embeddings.scalar_type()) {
    case at::kHalf:
      function(reinterpret_cast<const __half*>(embeddings.const_data_ptr<at::Half>()), One());
      break;
    case at::kBFloat16:
      function(reinterpret_cast<const __nv_bfloat16*>(embeddings.const_data_ptr<at::BFloat16>()),
               One());
      break;
    default:
      if (parts == 1) {
        function(embeddings.const_data_ptr<float>(), One());
      } else {
        function(embeddings.const_data_ptr<float>(), Two());
      }
  }
}

}  // namespace d2_ssod
