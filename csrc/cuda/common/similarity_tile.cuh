#pragma once

#include "cuda/common/unit_vectors.cuh"

namespace d2_ssod {

// A block's tile of a matrix product on the tensor cores, kRows x kCols, shared out to kWarpsM x
// kWarpsN warps; 16-row, 8-column fragments. kStages buffers of kDepth components hide the way from
// the L2 cache.
template <int kRows_, int kCols_, int kWarpsM_, int kWarpsN_, int kStages_, int kParts_>
struct Tile {
  static constexpr int kRows = kRows_, kCols = kCols_, kWarpsM = kWarpsM_, kWarpsN = kWarpsN_;
  static constexpr int kStages = kStages_, kParts = kParts_;
  static constexpr int kThreads = kWarpsM * kWarpsN * kWarpSize;
  static constexpr int kRowsPerWarp = kRows / kWarpsM, kColsPerWarp = kCols / kWarpsN;
  static constexpr int kM = kRowsPerWarp / 16, kN = kColsPerWarp / 8;
  static_assert(kRowsPerWarp % 16 == 0 && kColsPerWarp % 16 == 0, "load_matrices takes 16 x 16");

  // One thread's share of the tile.
  using Fragment = float[kM][kN][4];

  struct alignas(16) Stage {
    __half rows[kParts][kRows][kDepth];
    __half cols[kParts][kCols][kDepth];
  };

  // Where element e of fragment (m, n) of this thread lies in the tile.
  static __device__ int row(int m, int e) {
    return warp() / kWarpsN * kRowsPerWarp + m * 16 + e / 2 * 8 + lane() / 4;
  }
  static __device__ int col(int n, int e) {
    return warp() % kWarpsN * kColsPerWarp + n * 8 + lane() % 4 * 2 + e % 2;
  }
  static __device__ int warp() { return threadIdx.x / kWarpSize; }
  static __device__ int lane() { return threadIdx.x % kWarpSize; }

  static __device__ __forceinline__ void clear(Fragment& sums) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[m][n][e] = 0;
      }
    }
  }
};

// Large tiles bring the least through the L2 cache, small ones busy the most multiprocessors; all
// fit the 99 KB of shared memory that the smallest card has. Which large one is best depends on
// what is done beside the products.
template <typename Large_>
struct Tiles {
  using Large = Large_;
  using Medium = Tile<64, 64, 2, 2, 4, Large::kParts>;
  using Small = Tile<32, 32, 2, 2, 8, Large::kParts>;
};

enum class TileSize { kByData, kSmall, kMedium, kLarge };

// Calls function(tile) with a value of that type of tile.
template <typename Tiles, typename Function>
void with_tile(TileSize size, const Function& function) {
  switch (size) {
    case TileSize::kLarge:
      return function(typename Tiles::Large());
    case TileSize::kMedium:
      return function(typename Tiles::Medium());
    default:
      return function(typename Tiles::Small());
  }
}

struct TileShape {
  int64_t rows, cols;

  // How many it takes to cover so many rows and columns.
  int64_t count(int64_t all_rows, int64_t all_cols) const {
    return ceil_div(all_rows, rows) * ceil_div(all_cols, cols);
  }
};

template <typename Tiles>
TileShape shape_of(TileSize size) {
  TileShape shape{};
  with_tile<Tiles>(size,
                   [&](auto tile) { shape = {decltype(tile)::kRows, decltype(tile)::kCols}; });
  return shape;
}

// The largest tile of which there are enough, according to blocks(shape), to keep an H100 or H200
// evenly busy; the grid depends on the data alone.
template <typename Tiles, typename Blocks>
TileSize largest_tile(const Blocks& blocks) {
  constexpr int64_t kMultiprocessors = 128;
  // Two blocks of 256 threads share a multiprocessor.
  constexpr int64_t kEnoughLarge = kMultiprocessors * 512 / Tiles::Large::kThreads;
  if (blocks(shape_of<Tiles>(TileSize::kLarge)) >= kEnoughLarge) return TileSize::kLarge;
  if (blocks(shape_of<Tiles>(TileSize::kMedium)) >= kMultiprocessors) return TileSize::kMedium;
  return TileSize::kSmall;
}

constexpr int kPiece = 8;  // halves in 16 bytes, the unit of copies and of load_matrices

// Where a stage keeps piece `piece` of row `row`: such that one piece of 8 rows lies in 8 different
// groups of banks, without the memory that padding would take.
__device__ __forceinline__ int swizzled(int row, int piece) {
  return (piece ^ (row / 2 % 4)) * kPiece;
}

// Runs `load(step, stage)` kStages - 1 steps ahead of `compute(stage)`. At the end all stages are
// free.
template <int kStages, typename Load, typename Compute>
__device__ __forceinline__ void pipeline(int steps, const Load& load, const Compute& compute) {
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) load(step, step);
    copy_async_commit();
  }
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // everybody's copies of `step` are there, and nobody computes on `step - 1`
                      // any more
    const int ahead = step + kStages - 1;
    if (ahead < steps) load(ahead, ahead % kStages);
    copy_async_commit();
    compute(step % kStages);
  }
  copy_async_wait<0>();
  __syncthreads();
}

template <typename Tile>
__device__ __forceinline__ void multiply(typename Tile::Fragment& sums,
                                         const uint32_t (&a)[Tile::kM][4],
                                         const uint32_t (&b)[Tile::kN / 2][4]) {
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
    for (int n = 0; n < Tile::kN; ++n) {
      multiply_add(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
  }
}

// sums += the products of 16 components: high x high, and high x low and low x high of what has two
// parts.
template <typename Tile, int kPartsA, int kPartsB, typename LoadA, typename LoadB>
__device__ __forceinline__ void multiply_parts(typename Tile::Fragment& sums, const LoadA& load_a,
                                               const LoadB& load_b) {
  uint32_t a[Tile::kM][4], b[Tile::kN / 2][4];
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m) load_a(a[m], 0, m);
#pragma unroll
  for (int n = 0; n < Tile::kN / 2; ++n) load_b(b[n], 0, n);
  multiply<Tile>(sums, a, b);
  if constexpr (kPartsB == 2) {
    uint32_t low_b[Tile::kN / 2][4];
#pragma unroll
    for (int n = 0; n < Tile::kN / 2; ++n) load_b(low_b[n], 1, n);
    multiply<Tile>(sums, a, low_b);
  }
  if constexpr (kPartsA == 2) {
#pragma unroll
    for (int m = 0; m < Tile::kM; ++m) load_a(a[m], 1, m);
    multiply<Tile>(sums, a, b);
  }
}

// The pieces of vectors (of kParts parts of `pitch` components each) that a thread brings to shared
// memory at every step: one of every kAtOnce-th vector of a side (rows or columns) of kSize
// vectors. Where they lie is worked out once, since a step has but few products to hide that
// behind.
template <int kThreads, int kParts, int kSize>
class SideCopies {
 public:
  // index_of: row numbers, counted from the first of `vectors`; a negative one stands for any.
  template <typename IndexOf>
  __device__ __forceinline__ SideCopies(const __half* vectors, int64_t pitch,
                                        const IndexOf& index_of) {
    const int piece = threadIdx.x % kPieces, part = threadIdx.x / kPieces % kParts;
    const int first = threadIdx.x / (kPieces * kParts);
    to_ = (part * kSize + first) * kDepth + swizzled(first, piece);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int64_t index = index_of(first + i * kAtOnce);
      from_[i] = vectors + ((index < 0 ? 0 : index) * kParts + part) * pitch + piece * kPiece;
    }
  }

  // side: its part of a stage. Goes on to the next step.
  __device__ __forceinline__ void start(__half* side) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      copy_async_16(side + to_ + i * kAtOnce * kDepth, from_[i]);
      from_[i] += kDepth;
    }
  }

 private:
  static constexpr int kPieces = kDepth / kPiece;
  static constexpr int kAtOnce = kThreads / (kPieces * kParts);
  static constexpr int kCopies = kSize / kAtOnce;
  static_assert(kSize % kAtOnce == 0 && kAtOnce % 8 == 0, "all copies are swizzled alike");

  const __half* from_[kCopies];
  int to_;
};

// sums = dot products of the unit vectors row_of(0..kRows-1) and col_of(0..kCols-1), rows of
// `units` counted from `begin`; a negative one stands for any: its products mean nothing. All
// threads of the block call it.
template <typename Tile, typename RowOf, typename ColOf>
__device__ __forceinline__ void dot_products(typename Tile::Fragment& sums,
                                             const UnitVectors& units, int64_t begin,
                                             const RowOf& row_of, const ColOf& col_of,
                                             typename Tile::Stage* stages) {
  constexpr int kParts = Tile::kParts;
  const int lane = Tile::lane();
  const int warp_row = Tile::warp() / Tile::kWarpsN * Tile::kRowsPerWarp;
  const int warp_col = Tile::warp() % Tile::kWarpsN * Tile::kColsPerWarp;
  const __half* base = units.parts + begin * kParts * units.pitch;
  SideCopies<Tile::kThreads, kParts, Tile::kRows> rows(base, units.pitch, row_of);
  SideCopies<Tile::kThreads, kParts, Tile::kCols> cols(base, units.pitch, col_of);

  const auto load = [&](int, int stage) {
    rows.start(&stages[stage].rows[0][0][0]);
    cols.start(&stages[stage].cols[0][0][0]);
  };
  const auto compute = [&](int stage) {
#pragma unroll
    for (int k = 0; k < kDepth / kPiece; k += 2) {
      multiply_parts<Tile, kParts, kParts>(
          sums,
          [&](uint32_t (&a)[4], int part, int m) {
            const int r = warp_row + m * 16 + lane % 16;
            load_matrices(a, &stages[stage].rows[part][r][swizzled(r, k + lane / 16)]);
          },
          [&](uint32_t (&b)[4], int part, int n) {
            const int c = warp_col + n * 16 + lane / 16 * 8 + lane % 8;
            load_matrices(b, &stages[stage].cols[part][c][swizzled(c, k + lane / 8 % 2)]);
          });
    }
  };
  Tile::clear(sums);
  pipeline<Tile::kStages>(static_cast<int>(units.pitch / kDepth), load, compute);
}

}  // namespace d2_ssod
