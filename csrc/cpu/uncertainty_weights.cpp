// Weights of overlap and dissimilarity (Eq. 2-5).
//
// Napkin: per image with B background and F foreground rows 2 B F D FLOP (a core with two AVX-512
// units at 3.9 GHz does 250 GFLOP/s, with AVX2 half of that), and B x F x about 20 vector
// operations for the boxes, at D = 128 some 15 % on top. Bytes: the embeddings once, R D x 4, and
// the foreground a second time, transposed: far from the memory's limit. So the floor is the
// product's, and only background x foreground enters it: 3/16 of R x R at a quarter of foreground.
//
// Group by group of images, so that the transposed foreground stays in the caches:
// 1. All foreground rows, a panel per task: normalised, transposed, their own results written.
// 2. All background rows, up to kChunkRows per task: for each panel of the image's foreground and
//    each tile of rows the product, and right after it 1 - IoF, product and maximum. A row's own
//    norm scales all of its products alike, so it is applied once, to the maximum.

#include <torch/library.h>

#include "cpu/box_panels.h"
#include "cpu/embeddings.h"
#include "inputs.h"

namespace d2_ssod {
namespace {

// A multiple of every kTileRows; with D = 1024 the rows take 384 KiB of L2.
constexpr int64_t kChunkRows = 96;

template <typename T>
struct WeightArguments {
  Embeddings embeddings;  // [R, D]
  const T* boxes;         // [R, 4]
  const RowsByImage& foreground;
  const RowsByImage& background;
  const BoxPanels<T>& panels;        // of the foreground
  const BoxPanels<T>* ground_truth;  // null: variant "paper"
  const std::vector<Chunk>& chunks;  // of the background
  WeightCurve<T> curve;
  T* weights;           // [R]
  T* max_iou;           // [R]
  T* dissimilarity;     // [R]
  int64_t first_panel;  // in memory
  T* columns;           // [panel - first_panel][padded depth][panel columns]

  T* columns_of(int64_t panel) const {
    return columns + (panel - first_panel) * embeddings.padded_depth * panels.columns;
  }
};

template <typename T>
D2_SSOD_INLINE void write(const WeightArguments<T>& arguments, int64_t row, int64_t image,
                          T max_iou, T dissimilarity, bool foreground) {
  const bool no_overlap_factor =
      arguments.ground_truth ? arguments.ground_truth->count(image) == 0 : foreground;
  T weight = no_overlap_factor ? T(1) : overlap_factor(max_iou, arguments.curve);
  if (!foreground) weight *= dissimilarity_factor(dissimilarity, arguments.curve);
  arguments.weights[row] = weight + zero_or_nan(max_iou) + zero_or_nan(dissimilarity);
  arguments.max_iou[row] = max_iou;
  arguments.dissimilarity[row] = dissimilarity;
}

template <typename Isa, typename T>
D2_SSOD_INLINE void prepare_panel(const WeightArguments<T>& arguments, int64_t task, T* scratch) {
  const Embeddings& embeddings = arguments.embeddings;
  const Chunk& chunk = arguments.panels.chunks[task];
  T scales[kPanelColumns<Isa, T>];
  const int64_t* rows = &arguments.foreground.index[chunk.begin];
  const int64_t count = chunk.end - chunk.begin;
  place_columns<Isa, T>(embeddings, count, rows, scratch, scales, arguments.columns_of(task));
  for (int64_t column = 0; column < count; ++column) {
    const Box<T> box = load_box(arguments.boxes + 4 * rows[column]);
    const T max_iou =
        arguments.ground_truth
            ? largest_overlaps<Isa, T, false>(box, *arguments.ground_truth, chunk.image).iou
            : box_iou(box, box);
    const T dissimilarity = 1 + zero_or_nan(scales[column]) + zero_or_nan(box);
    write(arguments, rows[column], chunk.image, max_iou, dissimilarity, true);
  }
}

// What a task keeps of its rows, besides the tiles of embeddings.
template <typename Isa, typename T>
struct ChunkState {
  typename Isa::template Vector<T> largest[kChunkRows];
  Box<T> box[kChunkRows];
  T inverse_area[kChunkRows];
  T scale[kChunkRows];
};

// Tiles of the chunk's rows, as they are (not normalised).
template <typename Isa, typename T>
D2_SSOD_INLINE void prepare_rows(const WeightArguments<T>& arguments, const Chunk& chunk,
                                 T* converted, T* tiles, ChunkState<Isa, T>& state) {
  const Embeddings& embeddings = arguments.embeddings;
  const int64_t rows = round_up(chunk.end - chunk.begin, Isa::kTileRows);
  for (int64_t i = 0; i < rows; ++i) {
    T* tile_row = tiles + (i / Isa::kTileRows) * Isa::kTileRows * embeddings.padded_depth +
                  (i % Isa::kTileRows) * kDepthBlock;
    state.largest[i] = typename Isa::template Vector<T>{};
    if (chunk.begin + i >= chunk.end) {
      place_zero_row<Isa>(embeddings.padded_depth, tile_row);
      state.box[i] = {};
      state.inverse_area[i] = 0;
      continue;
    }
    const int64_t row = arguments.background.index[chunk.begin + i];
    const T* numbers = read_row(embeddings, row, converted);
    state.scale[i] = inverse_norm(squared_norm<Isa>(numbers, embeddings.depth));
    place_row<Isa>(numbers, embeddings.depth, embeddings.padded_depth, T(1), tile_row);
    state.box[i] = load_box(arguments.boxes + 4 * row);
    // Finite, so that no product with an intersection is NaN.
    state.inverse_area[i] = lower(1 / nonzero(state.box[i].area), T(3e38));
  }
}

// Maximum over one panel for one tile of rows. kVisible: of |cosine| (1 - IoF), else of |cosine|.
template <typename Isa, typename T, bool kVisible>
D2_SSOD_INLINE void update_largest(const Tile<Isa, T>& products, const T* panel_boxes,
                                   int64_t first_row, ChunkState<Isa, T>& state) {
  using Vector = typename Isa::template Vector<T>;
  for (int vector = 0; vector < kPanelVectors; ++vector) {
    const auto others = load_boxes<Isa, T>(panel_boxes, vector);
    for (int i = 0; i < Isa::kTileRows; ++i) {
      Vector similarity;
      if (kVisible) {
        const auto box = broadcast_box<Vector>(state.box[first_row + i]);
        const Vector iof = box_intersection(box, others) * state.inverse_area[first_row + i];
        similarity = visible_similarity(magnitude(products[i][vector]), iof);
      } else {
        similarity = magnitude(products[i][vector]);
      }
      state.largest[first_row + i] = upper(similarity, state.largest[first_row + i]);
    }
  }
}

template <typename Isa, typename T, bool kReleased>
D2_SSOD_INLINE void weigh_rows(const WeightArguments<T>& arguments, const Chunk& chunk,
                               T* scratch) {
  const int64_t depth = arguments.embeddings.padded_depth;
  T* const tiles = scratch + depth;
  ChunkState<Isa, T> state;
  prepare_rows<Isa, T>(arguments, chunk, scratch, tiles, state);
  const int64_t rows = chunk.end - chunk.begin;
  for (int64_t panel = arguments.panels.first[chunk.image];
       panel < arguments.panels.first[chunk.image + 1]; ++panel) {
    const T* columns = arguments.columns_of(panel);
    for (int64_t first = 0; first < rows; first += Isa::kTileRows) {
      Tile<Isa, T> products;
      multiply<false>(depth, tiles + first * depth, columns, products);
      update_largest<Isa, T, !kReleased>(products, arguments.panels.at(panel), first, state);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    const BoxPanels<T>& references = kReleased ? *arguments.ground_truth : arguments.panels;
    const Overlaps<T> overlaps =
        largest_overlaps<Isa, T, kReleased>(state.box[i], references, chunk.image);
    T similarity = largest_lane<T>(state.largest[i]) * state.scale[i] + zero_or_nan(overlaps.iou);
    if (kReleased) similarity *= 1 - overlaps.iof;
    write(arguments, arguments.background.index[chunk.begin + i], chunk.image, overlaps.iou,
          1 - similarity, false);
  }
}

template <typename Isa, typename T>
D2_SSOD_INLINE void weigh_chunk(const WeightArguments<T>& arguments, int64_t task, T* scratch) {
  if (arguments.ground_truth) {
    weigh_rows<Isa, T, true>(arguments, arguments.chunks[task], scratch);
  } else {
    weigh_rows<Isa, T, false>(arguments, arguments.chunks[task], scratch);
  }
}

D2_SSOD_INSTRUCTION_SETS(prepare_panel, WeightArguments)
D2_SSOD_INSTRUCTION_SETS(weigh_chunk, WeightArguments)

template <typename T>
void run(const UncertaintyInputs& inputs, const UncertaintyOutputs& outputs) {
  const uint8_t* flags = flags_of(inputs.is_foreground);
  const RowsByImage foreground = select_rows(flags, inputs.offsets, true);
  const RowsByImage background = select_rows(flags, inputs.offsets, false);
  const BoxPanels<T> panels(inputs.boxes.const_data_ptr<T>(), foreground);
  std::optional<BoxPanels<T>> gt_panels;
  if (inputs.ground_truth) {
    gt_panels.emplace(inputs.ground_truth->boxes.template const_data_ptr<T>(),
                      all_rows(inputs.ground_truth->offsets));
  }
  const std::vector<Chunk> chunks = cut(background.offsets, kChunkRows);
  const std::vector<int64_t> first_chunk = first_chunks(chunks, panels.num_images());
  const at::Tensor embeddings = with_contiguous_rows(inputs.embeddings);
  const Embeddings rows(embeddings);
  WeightArguments<T> arguments{rows,
                               inputs.boxes.const_data_ptr<T>(),
                               foreground,
                               background,
                               panels,
                               gt_panels ? &*gt_panels : nullptr,
                               chunks,
                               inputs.curve.as<T>(),
                               outputs.weights.mutable_data_ptr<T>(),
                               outputs.max_iou.mutable_data_ptr<T>(),
                               outputs.dissimilarity.mutable_data_ptr<T>(),
                               /*first_panel=*/0,
                               /*columns=*/nullptr};
  const auto prepare = prepare_panel_for_this_cpu<T>();
  const auto weigh = weigh_chunk_for_this_cpu<T>();
  const int64_t depth = rows.padded_depth;
  for (const ImageRange& group : group_images(panels.first, most_panels_at_once<T>(rows))) {
    const int64_t first_panel = panels.first[group.first], end_panel = panels.first[group.end];
    const Scratch<T> columns((end_panel - first_panel) * depth * panels.columns);
    arguments.first_panel = first_panel;
    arguments.columns = columns.data();
    parallel_tasks<T>(first_panel, end_panel, panels.columns * depth,
                      [&](int64_t task, T* scratch) { prepare(arguments, task, scratch); });
    parallel_tasks<T>(first_chunk[group.first], first_chunk[group.end], (1 + kChunkRows) * depth,
                      [&](int64_t task, T* scratch) { weigh(arguments, task, scratch); });
  }
}

void uncertainty_weights_cpu(const UncertaintyInputs& inputs, const UncertaintyOutputs& outputs) {
  (outputs.weights.scalar_type() == at::kDouble ? run<double> : run<float>)(inputs, outputs);
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CPU, m) {
  m.impl("uncertainty_weights", uncertainty_weights<uncertainty_weights_cpu>);
}

}  // namespace d2_ssod
