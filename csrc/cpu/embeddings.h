#pragma once

// Embeddings of any floating dtype, read as rows of float or double; their norms; their layouts
// (tile.h).

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>

#include "core/cosine.h"
#include "cpu/tile.h"

namespace d2_ssod {

// Tensor[R, D] with contiguous rows.
struct Embeddings {
  explicit Embeddings(const at::Tensor& embeddings)
      : dtype(embeddings.scalar_type()),
        depth(embeddings.size(1)),
        padded_depth(round_up(embeddings.size(1), kMaxPanelColumns)),
        row_bytes(embeddings.stride(0) * embeddings.element_size()),
        data(static_cast<const char*>(embeddings.const_data_ptr())) {}

  at::ScalarType dtype;
  int64_t depth;
  int64_t padded_depth;
  int64_t row_bytes;
  const char* data;
};

// How many panels to have in memory at a time: work for all threads that stays in their caches.
template <typename T>
int64_t most_panels_at_once(const Embeddings& embeddings) {
  constexpr int64_t kBytesPerThread = int64_t{2} << 20;
  const int64_t panel_bytes = embeddings.padded_depth * panel_columns<T>() * sizeof(T);
  return at::get_num_threads() * kBytesPerThread / std::max<int64_t>(1, panel_bytes);
}

inline at::Tensor with_contiguous_rows(const at::Tensor& embeddings) {
  return embeddings.size(1) <= 1 || embeddings.stride(1) == 1 ? embeddings
                                                              : embeddings.contiguous();
}

template <typename Source, typename T>
D2_SSOD_INLINE void convert(const char* source, int64_t size, T* destination) {
  const Source* numbers = reinterpret_cast<const Source*>(source);
  for (int64_t k = 0; k < size; ++k) destination[k] = static_cast<float>(numbers[k]);
}

// Row `index` as numbers of type T: in place if it is stored so, else written to `converted`
// (depth).
template <typename T>
D2_SSOD_INLINE const T* read_row(const Embeddings& embeddings, int64_t index, T* converted) {
  const char* source = embeddings.data + index * embeddings.row_bytes;
  if (embeddings.dtype == at::kHalf) {
    convert<c10::Half>(source, embeddings.depth, converted);
    return converted;
  }
  if (embeddings.dtype == at::kBFloat16) {
    convert<c10::BFloat16>(source, embeddings.depth, converted);
    return converted;
  }
  return reinterpret_cast<const T*>(source);
}

template <typename Isa, typename T>
D2_SSOD_INLINE T squared_norm(const T* row, int64_t depth) {
  using Vector = typename Isa::template Vector<T>;
  constexpr int kLanes = Isa::template kLanes<T>;
  Vector sums[4] = {};
  int64_t k = 0;
  for (; k + 4 * kLanes <= depth; k += 4 * kLanes) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const Vector x = load<Vector>(row + k + part * kLanes);
      sums[part] += x * x;
    }
  }
  T total = 0;
  for (; k < depth; ++k) total += row[k] * row[k];
  return total + sum_of_lanes<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Writes `row` times `scale` to its place in a tile of rows: 16 numbers in every kTileRows * 16.
template <typename Isa, typename T>
D2_SSOD_INLINE void place_row(const T* row, int64_t depth, int64_t padded_depth, T scale,
                              T* tile_row) {
  using Vector = typename Isa::template Vector<T>;
  constexpr int kLanes = Isa::template kLanes<T>;
  constexpr int64_t kStep = Isa::kTileRows * kDepthBlock;
  int64_t start = 0;
  for (; start + kDepthBlock <= depth; start += kDepthBlock, tile_row += kStep) {
#pragma GCC unroll 8
    for (int64_t k = 0; k < kDepthBlock; k += kLanes) {
      store(tile_row + k, load<Vector>(row + start + k) * scale);
    }
  }
  for (; start < padded_depth; start += kDepthBlock, tile_row += kStep) {
    for (int64_t k = 0; k < kDepthBlock; ++k) {
      tile_row[k] = start + k < depth ? row[start + k] * scale : T(0);
    }
  }
}

template <typename Isa, typename T>
D2_SSOD_INLINE void place_zero_row(int64_t padded_depth, T* tile_row) {
  for (int64_t start = 0; start < padded_depth; start += kDepthBlock) {
    for (int64_t k = 0; k < kDepthBlock; ++k) tile_row[k] = T(0);
    tile_row += Isa::kTileRows * kDepthBlock;
  }
}

// Writes rows index[0], ..., index[count - 1] as a panel of columns, normalised; scales: their
// inverse norms; converted: kPanelColumns * depth numbers. A few depths of all columns at a time,
// so that the lines of the panel that are written, a number per column, stay in L1.
template <typename Isa, typename T>
D2_SSOD_INLINE void place_columns(const Embeddings& embeddings, int64_t count, const int64_t* index,
                                  T* converted, T* scales, T* panel) {
  constexpr int64_t kColumns = kPanelColumns<Isa, T>;
  const T* rows[kColumns];
  for (int64_t column = 0; column < count; ++column) {
    rows[column] = read_row(embeddings, index[column], converted + column * embeddings.depth);
    scales[column] = inverse_norm(squared_norm<Isa>(rows[column], embeddings.depth));
  }
  for (int64_t start = 0; start < embeddings.padded_depth; start += kDepthBlock) {
    T* const block = panel + start * kColumns;
    const int64_t depths = std::clamp<int64_t>(embeddings.depth - start, 0, kDepthBlock);
    if (count < kColumns || depths < kDepthBlock) std::fill_n(block, kDepthBlock * kColumns, T(0));
    for (int64_t column = 0; column < count; ++column) {
      const T* numbers = rows[column] + start;
      for (int64_t k = 0; k < depths; ++k)
        block[k * kColumns + column] = numbers[k] * scales[column];
    }
  }
}

}  // namespace d2_ssod
