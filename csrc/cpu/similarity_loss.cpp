// Loss of the embedding (Eq. 6-7) and, on the way, its gradient.
//
// Napkin: per image 2 R^2 D FLOP for the cosines and as many for the gradient (the derivatives of
// all pairs times the embeddings); without the gradient, pairs to the left of the diagonal blocks
// follow from symmetry, which leaves R (R + 96) D. Bytes: the normalised embeddings in two layouts,
// R D x 4 each; of the pairs' derivatives only kGradientChunkRows x kBlockColumns exist at a time,
// 96 KiB per thread. The floor is the products'.
//
// Group by group of images, so that these layouts stay in the caches:
// 1. All rows, a panel per task: norms; normalised embeddings in the layouts of both products.
// 2. Some rows per task: for a block of columns the cosines, and right after each tile its loss and
//    derivatives; then the block's part of the gradient in the normalised rows. At the end through
//    the normalisation.

#include <torch/library.h>

#include <cstring>
#include <limits>

#include "cpu/box_panels.h"
#include "cpu/embeddings.h"
#include "inputs.h"

namespace d2_ssod {
namespace {

// Rows per task, multiples of every kTileRows. Without the gradient also of every kPanelColumns,
// for the symmetry; with it the rows, their gradients and derivatives are to fit in L2 together
// (0.5 MiB with D = 1024).
constexpr int64_t kChunkRows = 96;
constexpr int64_t kGradientChunkRows = 48;
constexpr int64_t kBlockColumns = 512;
// From here on floats no longer tell whole numbers apart.
constexpr int64_t kExactIds = int64_t{1} << 24;

// Rows of the second product's right side are padded per image to a multiple of it.
constexpr int64_t kRowPadding = 32;

template <typename T>
struct LossArguments {
  Embeddings embeddings;                     // [R, D]
  const T* boxes;                            // [R, 4]
  const std::vector<int64_t>& offsets;       // of the images' rows
  const RowsByImage& rows;                   // all
  const BoxPanels<T>& panels;                // of all rows
  const std::vector<Chunk>& chunks;          // of all rows
  const std::vector<int64_t>& slab_offsets;  // of the images' padded rows
  T iof_threshold;
  bool with_grad;
  T* classes;           // [panel][panel columns], NaN: no class
  T* scales;            // [R]: inverse norms
  double* losses;       // [chunk]: sum over its pairs
  T* gradient;          // [R, D]
  int64_t first_image;  // in memory
  T* columns;           // [panel][padded depth][panel columns]: normalised, for the cosines
  T* slabs;  // per image [padded depth / panel columns][padded rows][panel columns]: for the
             // gradient

  T* columns_of(int64_t panel) const {
    return columns + (panel - panels.first[first_image]) * embeddings.padded_depth * panels.columns;
  }
  T* slab_of(int64_t image) const {
    return slabs + (slab_offsets[image] - slab_offsets[first_image]) * embeddings.padded_depth;
  }
  int64_t padded_rows(int64_t image) const { return slab_offsets[image + 1] - slab_offsets[image]; }
};

// Writes `row` times `scale` as row `position` of its image's slab.
template <typename Isa, typename T>
D2_SSOD_INLINE void place_in_slab(const T* row, int64_t depth, int64_t padded_depth, T scale,
                                  int64_t position, int64_t padded_rows, T* slab) {
  constexpr int64_t kColumns = kPanelColumns<Isa, T>;
  for (int64_t start = 0; start < padded_depth; start += kColumns) {
    T* destination = slab + start * padded_rows + position * kColumns;
    const int64_t size = std::clamp<int64_t>(depth - start, 0, kColumns);
    for (int64_t k = 0; k < size; ++k) destination[k] = row[start + k] * scale;
    std::fill_n(destination + size, kColumns - size, T(0));
  }
}

template <typename Isa, typename T>
D2_SSOD_INLINE void prepare_panel(const LossArguments<T>& arguments, int64_t task, T* scratch) {
  const Embeddings& embeddings = arguments.embeddings;
  const Chunk& chunk = arguments.panels.chunks[task];
  const int64_t count = chunk.end - chunk.begin, first_row = arguments.offsets[chunk.image];
  T* scales = arguments.scales + chunk.begin;
  place_columns<Isa, T>(embeddings, count, &arguments.rows.index[chunk.begin], scratch, scales,
                        arguments.columns_of(task));
  if (!arguments.with_grad) return;
  const int64_t padded_depth = embeddings.padded_depth;
  const int64_t padded_rows = arguments.padded_rows(chunk.image);
  T* slab = arguments.slab_of(chunk.image);
  for (int64_t row = chunk.begin; row < chunk.end; ++row) {
    place_in_slab<Isa, T>(read_row(embeddings, row, scratch), embeddings.depth, padded_depth,
                          scales[row - chunk.begin], row - first_row, padded_rows, slab);
  }
  if (chunk.end != arguments.offsets[chunk.image + 1]) return;
  for (int64_t position = chunk.end - first_row; position < padded_rows; ++position) {
    place_in_slab<Isa, T>(scratch, 0, padded_depth, T(0), position, padded_rows, slab);
  }
}

template <typename T>
struct ChunkRows {
  Box<T> box[kChunkRows];
  T class_id[kChunkRows];
  T nan_if_box_is;
};

// Tiles of the chunk's rows, normalised.
template <typename Isa, typename T>
D2_SSOD_INLINE void prepare_rows(const LossArguments<T>& arguments, const Chunk& chunk,
                                 T* converted, T* tiles, ChunkRows<T>& chunk_rows) {
  constexpr int64_t kColumns = kPanelColumns<Isa, T>;
  const Embeddings& embeddings = arguments.embeddings;
  const int64_t rows = round_up(chunk.end - chunk.begin, Isa::kTileRows);
  const T* classes = arguments.classes + arguments.panels.first[chunk.image] * kColumns +
                     (chunk.begin - arguments.offsets[chunk.image]);
  chunk_rows.nan_if_box_is = 0;
  for (int64_t i = 0; i < rows; ++i) {
    T* tile_row = tiles + (i / Isa::kTileRows) * Isa::kTileRows * embeddings.padded_depth +
                  (i % Isa::kTileRows) * kDepthBlock;
    chunk_rows.box[i] = {};
    chunk_rows.class_id[i] = std::numeric_limits<T>::quiet_NaN();
    if (chunk.begin + i >= chunk.end) {
      place_zero_row<Isa>(embeddings.padded_depth, tile_row);
      continue;
    }
    const int64_t row = chunk.begin + i;
    place_row<Isa>(read_row(embeddings, row, converted), embeddings.depth, embeddings.padded_depth,
                   arguments.scales[row], tile_row);
    const Box<T> box = load_box(arguments.boxes + 4 * row);
    chunk_rows.nan_if_box_is += zero_or_nan(box);
    if (zero_or_nan(box) == 0) chunk_rows.box[i] = box;
    chunk_rows.class_id[i] = classes[i];
  }
}

// The loss of one tile, its lanes added up per vector; with kGradient also the derivative in the
// cosines, written as rows of the second product.
template <typename Isa, typename T, bool kGradient>
D2_SSOD_INLINE typename Isa::template Vector<T> tile_loss(
    const LossArguments<T>& arguments, const Tile<Isa, T>& cosines, int64_t panel,
    const ChunkRows<T>& chunk_rows, int64_t first_row, int64_t block_column, T* derivatives) {
  using Vector = typename Isa::template Vector<T>;
  constexpr int64_t kLanes = Isa::template kLanes<T>;
  const Vector one = broadcast<Vector>(T(1)),
               threshold = broadcast<Vector>(arguments.iof_threshold);
  Vector sums = {};
  for (int vector = 0; vector < kPanelVectors; ++vector) {
    const auto others = load_boxes<Isa, T>(arguments.panels.at(panel), vector);
    const Vector classes =
        load<Vector>(arguments.classes + panel * kPanelColumns<Isa, T> + vector * kLanes);
    const int64_t column = block_column + vector * kLanes;
    T* destination =
        derivatives + (column / kDepthBlock) * Isa::kTileRows * kDepthBlock + column % kDepthBlock;
    for (int i = 0; i < Isa::kTileRows; ++i) {
      const auto box = broadcast_box<Vector>(chunk_rows.box[first_row + i]);
      // 1 for equal ids, at most 0 for different ones, 0 for NaN. (As a comparison it would be
      // scalar code.)
      const Vector same_class =
          upper(1 - magnitude(classes - chunk_rows.class_id[first_row + i]), Vector{});
      const Vector similar = box_inside(box, others, threshold) ? one : same_class;
      sums += pair_loss(cosines[i][vector], similar);
      if (kGradient) {
        store(destination + i * kDepthBlock, pair_loss_derivative(cosines[i][vector], similar));
      }
    }
  }
  return sums;
}

// tiles of gradients += derivatives x the slab's rows of this block.
template <typename Isa, typename T>
D2_SSOD_INLINE void add_gradient(const LossArguments<T>& arguments, const Chunk& chunk,
                                 int64_t block_begin, int64_t block_columns, const T* derivatives,
                                 T* gradients) {
  constexpr int64_t kColumns = kPanelColumns<Isa, T>;
  constexpr int64_t kTile = Isa::kTileRows * kColumns;
  const int64_t padded_depth = arguments.embeddings.padded_depth;
  const int64_t depth = round_up(block_columns, kDepthBlock);
  const int64_t padded_rows = arguments.padded_rows(chunk.image);
  const T* slab = arguments.slab_of(chunk.image);
  for (int64_t start = 0; start < padded_depth; start += kColumns) {
    const T* columns = slab + start * padded_rows + block_begin * kColumns;
    for (int64_t first = 0; first < chunk.end - chunk.begin; first += Isa::kTileRows) {
      T* sums = gradients + first * padded_depth + (start / kColumns) * kTile;
      Tile<Isa, T> tile;
      std::memcpy(tile, sums, sizeof(tile));
      multiply<true>(depth, derivatives + first * kBlockColumns, columns, tile);
      std::memcpy(sums, tile, sizeof(tile));
    }
  }
  static_assert(sizeof(Tile<Isa, T>) == kTile * sizeof(T));
}

// g . f of one row; its gradient g lies in pieces of kPanelColumns numbers.
template <typename Isa, typename T>
D2_SSOD_INLINE T dot(const T* gradient, const T* row, int64_t depth) {
  using Vector = typename Isa::template Vector<T>;
  constexpr int64_t kColumns = kPanelColumns<Isa, T>, kLanes = Isa::template kLanes<T>;
  Vector left = {}, right = {};
  T rest = 0;
  for (int64_t start = 0; start < depth; start += kColumns) {
    const T* part = gradient + start * Isa::kTileRows;
    if (start + kColumns <= depth) {
      left += load<Vector>(part) * load<Vector>(row + start);
      right += load<Vector>(part + kLanes) * load<Vector>(row + start + kLanes);
    } else {
      for (int64_t k = start; k < depth; ++k) rest += part[k - start] * row[k];
    }
  }
  return rest + sum_of_lanes<T>(left + right);
}

// Through the normalisation u = f / |f|: from g = dL/du to dL/df = (g - (g . u) u) / |f|.
template <typename Isa, typename T>
D2_SSOD_INLINE void write_gradient(const LossArguments<T>& arguments, const Chunk& chunk,
                                   const T* gradients, T* converted) {
  constexpr int64_t kColumns = kPanelColumns<Isa, T>;
  const Embeddings& embeddings = arguments.embeddings;
  const T rows =
      static_cast<T>(arguments.offsets[chunk.image + 1] - arguments.offsets[chunk.image]);
  const T images = static_cast<T>(arguments.offsets.size() - 1);
  for (int64_t i = 0; i < chunk.end - chunk.begin; ++i) {
    const int64_t row = chunk.begin + i;
    const T* numbers = read_row(embeddings, row, converted);
    const T* sums = gradients + (i / Isa::kTileRows) * Isa::kTileRows * embeddings.padded_depth +
                    (i % Isa::kTileRows) * kColumns;
    const T scale = arguments.scales[row];
    // A norm below eps counts as eps, a constant: nothing to project out.
    const bool constant_norm = scale >= 1 / static_cast<T>(kCosineEps);
    const T along =
        constant_norm ? T(0) : dot<Isa>(sums, numbers, embeddings.depth) * scale * scale;
    // 2: the pairs (i, j) and (j, i).
    const T factor = 2 * scale / (rows * rows * images);
    T* destination = arguments.gradient + row * embeddings.depth;
    for (int64_t start = 0; start < embeddings.depth; start += kColumns) {
      const T* part = sums + start * Isa::kTileRows;
      const int64_t size = std::min(kColumns, embeddings.depth - start);
      for (int64_t k = 0; k < size; ++k) {
        destination[start + k] = factor * (part[k] - along * numbers[start + k]);
      }
    }
  }
}

template <typename Isa, typename T, bool kGradient>
D2_SSOD_INLINE void compare_rows(const LossArguments<T>& arguments, int64_t task, T* scratch) {
  constexpr int64_t kColumns = kPanelColumns<Isa, T>;
  const Chunk& chunk = arguments.chunks[task];
  const int64_t depth = arguments.embeddings.padded_depth, rows = chunk.end - chunk.begin;
  T* const tiles = scratch + depth;
  T* const gradients = tiles + kGradientChunkRows * depth;
  T* const derivatives = gradients + kGradientChunkRows * depth;
  ChunkRows<T> chunk_rows;
  prepare_rows<Isa, T>(arguments, chunk, scratch, tiles, chunk_rows);
  if (kGradient) std::fill_n(gradients, kGradientChunkRows * depth, T(0));
  const int64_t first_panel = arguments.panels.first[chunk.image];
  const int64_t end_panel = arguments.panels.first[chunk.image + 1];
  const int64_t own_panel = first_panel + (chunk.begin - arguments.offsets[chunk.image]) / kColumns;
  double loss = chunk_rows.nan_if_box_is;
  for (int64_t block = kGradient ? first_panel : own_panel; block < end_panel;
       block += kBlockColumns / kColumns) {
    const int64_t block_end = std::min(end_panel, block + kBlockColumns / kColumns);
    const int64_t block_columns = (block_end - block) * kColumns;
    if (kGradient && block_columns % kDepthBlock)
      std::fill_n(derivatives, kGradientChunkRows * kBlockColumns, T(0));
    for (int64_t panel = block; panel < block_end; ++panel) {
      // Without the gradient, the pairs left of the chunk's own square count through their mirror
      // images on the right.
      const double weight = !kGradient && panel >= own_panel + kChunkRows / kColumns ? 2 : 1;
      for (int64_t first = 0; first < rows; first += Isa::kTileRows) {
        Tile<Isa, T> cosines;
        multiply<false>(depth, tiles + first * depth, arguments.columns_of(panel), cosines);
        const auto sums = tile_loss<Isa, T, kGradient>(arguments, cosines, panel, chunk_rows, first,
                                                       (panel - block) * kColumns,
                                                       derivatives + first * kBlockColumns);
        loss += weight * sum_of_lanes<T>(sums);
      }
    }
    if (kGradient) {
      add_gradient<Isa, T>(arguments, chunk, (block - first_panel) * kColumns, block_columns,
                           derivatives, gradients);
    }
  }
  arguments.losses[task] = loss;
  if (kGradient) write_gradient<Isa, T>(arguments, chunk, gradients, scratch);
}

template <typename Isa, typename T>
D2_SSOD_INLINE void compare_chunk(const LossArguments<T>& arguments, int64_t task, T* scratch) {
  if (arguments.with_grad) {
    compare_rows<Isa, T, true>(arguments, task, scratch);
  } else {
    compare_rows<Isa, T, false>(arguments, task, scratch);
  }
}

D2_SSOD_INSTRUCTION_SETS(prepare_panel, LossArguments)
D2_SSOD_INSTRUCTION_SETS(compare_chunk, LossArguments)

// The rank of each id among those that occur, in their place where they are too large for floats.
std::vector<int64_t> ranks(const int64_t* ids, int64_t count) {
  std::vector<int64_t> known(ids, ids + count);
  std::sort(known.begin(), known.end());
  std::vector<int64_t> ranked(count);
  for (int64_t row = 0; row < count; ++row) {
    const auto place = std::lower_bound(known.begin(), known.end(), ids[row]);
    ranked[row] = ids[row] < 0 ? -1 : place - known.begin();
  }
  return ranked;
}

// Class ids as numbers to compare, NaN (equal to nothing) for those below 0 and where there is no
// row.
template <typename T>
void place_classes(const std::optional<at::Tensor>& classes, const BoxPanels<T>& panels,
                   T* placed) {
  std::fill_n(placed, panels.chunks.size() * panels.columns, std::numeric_limits<T>::quiet_NaN());
  if (!classes) return;
  const int64_t* ids = classes->const_data_ptr<int64_t>();
  const int64_t count = classes->numel();
  std::vector<int64_t> ranked;
  if (std::any_of(ids, ids + count, [](int64_t id) { return id >= kExactIds; })) {
    ranked = ranks(ids, count);
    ids = ranked.data();
  }
  for (size_t panel = 0; panel < panels.chunks.size(); ++panel) {
    const Chunk& chunk = panels.chunks[panel];
    for (int64_t row = chunk.begin; row < chunk.end; ++row) {
      if (ids[row] >= 0)
        placed[panel * panels.columns + row - chunk.begin] = static_cast<T>(ids[row]);
    }
  }
}

// Mean over the images of the mean over their pairs; the chunks in their order, so that threads do
// not matter.
double mean_loss(const std::vector<double>& losses, const std::vector<Chunk>& chunks,
                 const std::vector<int64_t>& offsets) {
  double total = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const double rows =
        static_cast<double>(offsets[chunks[i].image + 1] - offsets[chunks[i].image]);
    total += losses[i] / (rows * rows);
  }
  return offsets.size() > 1 ? total / static_cast<double>(offsets.size() - 1) : 0;
}

template <typename T>
void run(const LossInputs& inputs, const at::Tensor& loss, const at::Tensor& gradient) {
  const std::vector<int64_t>& offsets = inputs.offsets;
  const T* boxes = inputs.boxes.const_data_ptr<T>();
  const RowsByImage all = all_rows(offsets);
  const BoxPanels<T> panels(boxes, all);
  const std::vector<Chunk> chunks =
      cut(offsets, inputs.with_grad ? kGradientChunkRows : kChunkRows);
  const std::vector<int64_t> first_chunk = first_chunks(chunks, panels.num_images());
  std::vector<int64_t> slab_offsets{0};
  for (int64_t image = 0; image < panels.num_images(); ++image) {
    slab_offsets.push_back(slab_offsets.back() +
                           round_up(offsets[image + 1] - offsets[image], kRowPadding));
  }
  const at::Tensor embeddings = with_contiguous_rows(inputs.embeddings);
  const Embeddings rows(embeddings);
  const Scratch<T> class_ids(panels.chunks.size() * panels.columns), scales(inputs.rows());
  place_classes(inputs.classes, panels, class_ids.data());
  std::vector<double> losses(chunks.size());
  LossArguments<T> arguments{rows,
                             boxes,
                             offsets,
                             all,
                             panels,
                             chunks,
                             slab_offsets,
                             static_cast<T>(inputs.iof_threshold),
                             inputs.with_grad,
                             class_ids.data(),
                             scales.data(),
                             losses.data(),
                             inputs.with_grad ? gradient.mutable_data_ptr<T>() : nullptr,
                             /*first_image=*/0,
                             /*columns=*/nullptr,
                             /*slabs=*/nullptr};
  const auto prepare = prepare_panel_for_this_cpu<T>();
  const auto compare = compare_chunk_for_this_cpu<T>();
  const int64_t depth = rows.padded_depth;
  const int64_t scratch_size = inputs.with_grad
                                   ? depth + kGradientChunkRows * (2 * depth + kBlockColumns)
                                   : depth + kChunkRows * depth;
  for (const ImageRange& group : group_images(panels.first, most_panels_at_once<T>(rows))) {
    const int64_t first_panel = panels.first[group.first], end_panel = panels.first[group.end];
    const int64_t slab_rows = slab_offsets[group.end] - slab_offsets[group.first];
    const Scratch<T> columns((end_panel - first_panel) * panels.columns * depth);
    const Scratch<T> slabs(inputs.with_grad ? slab_rows * depth : 0);
    arguments.first_image = group.first;
    arguments.columns = columns.data();
    arguments.slabs = slabs.data();
    parallel_tasks<T>(first_panel, end_panel, panels.columns * depth,
                      [&](int64_t task, T* scratch) { prepare(arguments, task, scratch); });
    parallel_tasks<T>(first_chunk[group.first], first_chunk[group.end], scratch_size,
                      [&](int64_t task, T* scratch) { compare(arguments, task, scratch); });
  }
  *loss.mutable_data_ptr<T>() = static_cast<T>(mean_loss(losses, chunks, offsets));
}

void similarity_loss_cpu(const LossInputs& inputs, const at::Tensor& loss,
                         const at::Tensor& gradient) {
  (loss.scalar_type() == at::kDouble ? run<double> : run<float>)(inputs, loss, gradient);
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CPU, m) {
  m.impl("similarity_loss", similarity_loss<similarity_loss_cpu>);
}

}  // namespace d2_ssod
