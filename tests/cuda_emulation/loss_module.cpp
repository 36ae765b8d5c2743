// The similarity loss, as module.cpp has the other operators.
#include "cuda/similarity_loss.cu"

namespace {

d2_ssod::LossTiling chosen;

void with_chosen_tiling(const d2_ssod::LossInputs& inputs, const at::Tensor& loss,
                        const at::Tensor& gradient) {
  chosen.largest = d2_ssod::tiling_of(inputs).largest;
  d2_ssod::run_float(inputs, loss, gradient, chosen);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(d2_ssod_emulation, m) {
  // Tiles: 1 small, 2 medium, 3 large; rows of an image that a launch takes.
  m.def("choose_loss_tiling(int pairs, int gradient, int chunk_rows) -> ()",
        [](int64_t pairs, int64_t gradient, int64_t chunk_rows) {
          chosen.pairs = static_cast<d2_ssod::TileSize>(pairs);
          chosen.gradient = static_cast<d2_ssod::TileSize>(gradient);
          chosen.chunk_rows = chunk_rows;
        });
  m.def(
      "similarity_loss(Tensor boxes, Tensor embeddings, SymInt[] "
      "rois_per_image, "
      "float iof_threshold, Tensor? classes, bool with_grad) -> (Tensor, "
      "Tensor)",
      d2_ssod::similarity_loss<with_chosen_tiling>);
}
