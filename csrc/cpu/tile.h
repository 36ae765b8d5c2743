#pragma once

// The matrix product under uncertainty_weights and similarity_loss, one register tile at a time, so
// that what follows the product is done while the tile is still in registers and no N x M matrix is
// stored.
//
// Layouts. Depth is the common dimension, padded with zeros to a multiple of kDepthBlock.
//   rows:    [tile][depth / 16][kTileRows][16]   16 numbers of one row, then of the next: one
//   pointer walks over
//                                                all rows of a tile, and copying a row needs no
//                                                transposition.
//   columns: [panel][depth][2 vectors]           depth-major; a panel is 2 vectors of columns.
// A depth step loads 2 vectors and kTileRows scalars for 2 * kTileRows multiply-adds, few enough
// loads to keep the multiply-add units busy with the panel in L1 and the rows in L2.

#include "cpu/simd.h"

namespace d2_ssod {

constexpr int64_t kDepthBlock = 16;
constexpr int64_t kPanelVectors = 2;
constexpr int64_t kMaxPanelColumns = 32;

constexpr int64_t ceil_div(int64_t x, int64_t y) { return (x + y - 1) / y; }
constexpr int64_t round_up(int64_t x, int64_t y) { return ceil_div(x, y) * y; }

template <typename Isa, typename T>
constexpr int64_t kPanelColumns = kPanelVectors * Isa::template kLanes<T>;

// kPanelColumns of the instruction set in use.
template <typename T>
int64_t panel_columns() {
  switch (instruction_level()) {
    case Level::kAvx512:
      return kPanelColumns<Avx512, T>;
    case Level::kAvx2:
      return kPanelColumns<Avx2, T>;
    default:
      return kPanelColumns<Baseline, T>;
  }
}

template <typename Isa, typename T>
using Tile = typename Isa::template Vector<T>[Isa::kTileRows][kPanelVectors];

template <typename Isa, typename T, bool kAdd>
D2_SSOD_INLINE void multiply_in_registers(int64_t depth, const T* rows, const T* columns,
                                          Tile<Isa, T>& tile) {
  using Vector = typename Isa::template Vector<T>;
  constexpr int kLanes = Isa::template kLanes<T>;
  Tile<Isa, T> sums;
#pragma GCC unroll 16
  for (int row = 0; row < Isa::kTileRows; ++row) {
    sums[row][0] = kAdd ? tile[row][0] : Vector{};
    sums[row][1] = kAdd ? tile[row][1] : Vector{};
  }
  for (int64_t start = 0; start < depth; start += kDepthBlock) {
    for (int64_t k = 0; k < kDepthBlock; ++k) {
      const Vector left = load<Vector>(columns);
      const Vector right = load<Vector>(columns + kLanes);
#pragma GCC unroll 16
      for (int row = 0; row < Isa::kTileRows; ++row) {
        const T factor = rows[row * kDepthBlock + k];
        sums[row][0] += factor * left;
        sums[row][1] += factor * right;
      }
      columns += kPanelVectors * kLanes;
    }
    rows += Isa::kTileRows * kDepthBlock;
  }
#pragma GCC unroll 16
  for (int row = 0; row < Isa::kTileRows; ++row) {
    tile[row][0] = sums[row][0];
    tile[row][1] = sums[row][1];
  }
}

// tile = rows x columns over `depth` (a multiple of kDepthBlock), or tile += with kAdd. Functions
// of their own, one per instruction set: inlined, the surrounding loops' constants take registers
// that the sums need.
template <bool kAdd, typename T>
D2_SSOD_TARGET_AVX512 __attribute__((noinline)) void multiply(int64_t depth, const T* rows,
                                                              const T* columns,
                                                              Tile<Avx512, T>& tile) {
  multiply_in_registers<Avx512, T, kAdd>(depth, rows, columns, tile);
}

template <bool kAdd, typename T>
D2_SSOD_TARGET_AVX2 __attribute__((noinline)) void multiply(int64_t depth, const T* rows,
                                                            const T* columns, Tile<Avx2, T>& tile) {
  multiply_in_registers<Avx2, T, kAdd>(depth, rows, columns, tile);
}

template <bool kAdd, typename T>
__attribute__((noinline)) void multiply(int64_t depth, const T* rows, const T* columns,
                                        Tile<Baseline, T>& tile) {
  multiply_in_registers<Baseline, T, kAdd>(depth, rows, columns, tile);
}

}  // namespace d2_ssod
