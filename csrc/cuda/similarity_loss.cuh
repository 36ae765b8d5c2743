#pragma once

// Eq. 7 and its derivative in four launches for up to kImagesPerLaunch images:
// 1. prepare_loss_kernel: unit vectors.
// 2. pair_loss_kernel: a block takes a tile of an image's pairs: first cosines on the tensor cores,
//    then the pairs' losses and, if asked for, their derivatives G, which it writes down.
// 3. loss_gradient_kernel: a block takes a tile of G U. With c_ij = u_i . u_j,
//    L = 1/R^2 sum_ij loss(c_ij):
//      dL/du_i = 2/R^2 sum_j G_ij u_j (the targets are symmetric)
//      dL/df_i = (dL/du_i - u_i (u_i . dL/du_i)) / |f_i|
//    where u_i . sum_j G_ij u_j = sum_j G_ij c_ij, which 2 has added up by the way.
// 4. sum_kernel: the blocks' parts of the loss in a fixed order, so that results are reproducible.
//
// 2 and 3 take some rows of every image at a time, so that G never needs more than
// kMostDerivatives.
//
// Napkin, float32, 16 x 512, D 1024 (an H200: 4 TB/s; about 5.5 TB/s from the L2 cache; 730
// TFLOP/s of dense half products, of which mma.sync reaches about 60%).
//   arithmetic: 2 products of 16 x 2 x 512^2 x D FLOP in 3 parts each: 52 GFLOP -> 115 us.
//   bytes: embeddings read, unit vectors written and read, gradient written: 134 MB -> 34 us.
//   L2: either product reads 32 KB for 32 components of 128 x 128 results: 540 MB -> 98 us, so that
//   and the arithmetic bound it.
// The forward alone is half of it, D 128 an eighth; half or bfloat16 embeddings need half of the
// arithmetic and about 60% of the L2 traffic.

#include <algorithm>

#include "cuda/common/similarity_tile.cuh"

namespace d2_ssod {

struct SimilarityLossParameters {
  const float* boxes;      // [R, 4]
  const int64_t* classes;  // [R]; may be null
  UnitVectors units;
  float* inverse_norm;   // [R]
  float* gradient;       // [R, D]; null: the loss alone
  __half* derivatives;   // [images, chunk_rows, 2, derivative_pitch]: G_ij scale_j, sums of halves
  float* projections;    // [images, chunk_rows, col_tiles]: sum_j G_ij c_ij over a tile's columns
  double* partial_loss;  // [images, row_tiles, col_tiles]
  int64_t dimensions, derivative_pitch;
  int64_t first_row, chunk_rows;  // the rows of each image that a launch takes
  int64_t batch_images;           // of which `rois` holds some
  int64_t row_tiles, col_tiles;   // of pairs in the batch's largest image
  int64_t tile_cols;              // of a tile of pairs
  float iof_threshold;
  ImageTable rois;

  // What the launch keeps of a row of an image.
  __device__ int64_t place(int image, int row) const {
    return image * chunk_rows + (row - first_row);
  }
  __device__ __half* derivatives_of(int image, int row) const {
    return derivatives + place(image, row) * 2 * derivative_pitch;
  }
  __device__ float* projections_of(int image, int row) const {
    return projections + place(image, row) * col_tiles;
  }
};

// Blocks per multiprocessor; without them the compiler aims at 8, and spills registers.
constexpr int kLossPrepareThreads = 256, kLossPrepareBlocks = 5;

template <int kParts, int kAtOnce, typename T>
__global__ void __launch_bounds__(kLossPrepareThreads, kLossPrepareBlocks)
    prepare_loss_kernel(const __grid_constant__ SimilarityLossParameters p,
                        const T* __restrict__ embeddings) {
  const int64_t row = p.rois.begin[0] +
                      static_cast<int64_t>(blockIdx.x) * (kLossPrepareThreads / kWarpSize) +
                      threadIdx.x / kWarpSize;
  if (row >= p.rois.begin[p.rois.count]) return;
  const float inverse = write_unit_vector<kParts, kAtOnce>(embeddings + row * p.dimensions,
                                                           p.dimensions, row, p.units);
  if (threadIdx.x % kWarpSize == 0) p.inverse_norm[row] = inverse;
}

// A RoI as the pairs see it. Beyond the end of the image its index is negative, and no pair of it
// counts: its scale, and so every cosine, is 0, its box overlaps nothing.
struct alignas(16) LossSide {
  Box<float> box;
  float scale;
  int index;
  int64_t label;  // of no class: -1 in rows, -2 in columns
};

template <typename Tile>
struct PairLossStorage {
  union {
    typename Tile::Stage stages[Tile::kStages];
    // Of the tile: high and low halves; a piece more per row, so that one piece of 8 rows lies in 8
    // different groups of banks.
    __half derivatives[2][Tile::kRows][Tile::kCols + kPiece];
  };
  LossSide rows[Tile::kRows], cols[Tile::kCols];
  float projections[Tile::kWarpsN][Tile::kRows];  // sum_j G_ij c_ij over the columns of each warp
  double losses[Tile::kWarpsM * Tile::kWarpsN];
};

__device__ inline LossSide load_loss_side(const SimilarityLossParameters& p, int64_t begin,
                                          int index, int rows, int no_class) {
  if (index >= rows) return {{0, 0, 0, 0, 0}, 0, -1, no_class};
  const int64_t row = begin + index, label = p.classes == nullptr ? -1 : p.classes[row];
  return {load_box(p.boxes + 4 * row), p.units.scale[row], index, label < 0 ? no_class : label};
}

// Turns the dot products of the tile into derivatives G_ij scale_j in shared memory (as unit
// vectors are: the sum of halves, always two here); returns the loss, and each row's sum_j G_ij
// c_ij.
template <typename Tile>
__device__ __forceinline__ float pair_terms(const SimilarityLossParameters& p,
                                            const typename Tile::Fragment& dots,
                                            PairLossStorage<Tile>& shared,
                                            float (&projections)[Tile::kM][2]) {
  float loss = 0;
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = Tile::row(m, 2 * half);
      const LossSide row = shared.rows[r];
      loss += zero_or_nan(row.box);  // a box with a NaN has no target
#pragma unroll
      for (int n = 0; n < Tile::kN; ++n) {
        float derivatives[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const LossSide& col = shared.cols[Tile::col(n, e)];
          const float cosine = dots[m][n][2 * half + e] * row.scale * col.scale;
          const bool similar =  // y_ij of Eq. 7
              box_inside(row.box, col.box, p.iof_threshold) || row.label == col.label;
          loss += pair_loss(cosine, similar);
          const float derivative = pair_loss_derivative(cosine, similar);
          projections[m][half] += derivative * cosine;
          derivatives[e] = derivative * col.scale;
        }
        const Vector<__half, 2> high{__float2half_rn(derivatives[0]),
                                     __float2half_rn(derivatives[1])};
        const Vector<__half, 2> low{__float2half_rn(derivatives[0] - __half2float(high.values[0])),
                                    __float2half_rn(derivatives[1] - __half2float(high.values[1]))};
        const int c = Tile::col(n, 0);
        *reinterpret_cast<Vector<__half, 2>*>(&shared.derivatives[0][r][c]) = high;
        *reinterpret_cast<Vector<__half, 2>*>(&shared.derivatives[1][r][c]) = low;
      }
    }
  }
  return loss;
}

// The tile's derivatives and projections, from shared to global memory.
template <typename Tile>
__device__ __forceinline__ void store_derivatives(const SimilarityLossParameters& p, int image,
                                                  int first_col,
                                                  const PairLossStorage<Tile>& shared) {
  constexpr int kPieces = Tile::kCols / kPiece;
  for (int i = threadIdx.x; i < 2 * Tile::kRows * kPieces; i += Tile::kThreads) {
    const int c = i % kPieces * kPiece, part = i / kPieces % 2, r = i / kPieces / 2;
    const int index = shared.rows[r].index;
    if (index < 0 || first_col + c >= p.derivative_pitch) continue;
    __half* to = p.derivatives_of(image, index) + part * p.derivative_pitch + first_col + c;
    *reinterpret_cast<Vector<__half, kPiece>*>(to) =
        *reinterpret_cast<const Vector<__half, kPiece>*>(&shared.derivatives[part][r][c]);
  }
  for (int r = threadIdx.x; r < Tile::kRows; r += Tile::kThreads) {
    const int index = shared.rows[r].index;
    if (index < 0) continue;
    float sum = 0;
    for (int warp = 0; warp < Tile::kWarpsN; ++warp) sum += shared.projections[warp][r];
    p.projections_of(image, index)[first_col / Tile::kCols] = sum;
  }
}

// Block (x, y, z): columns of tile x, rows of tile y of those that the launch takes, of image z.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    pair_loss_kernel(const __grid_constant__ SimilarityLossParameters p) {
  auto& shared = shared_storage<PairLossStorage<Tile>>();
  const int image = blockIdx.z, thread = threadIdx.x;
  const int64_t begin = p.rois.begin[image];
  const int rows = static_cast<int>(p.rois.rows(image));
  const int64_t row_tile = p.first_row / Tile::kRows + blockIdx.y;
  const int64_t first_row = row_tile * Tile::kRows;
  const int first_col = static_cast<int>(blockIdx.x) * Tile::kCols;
  double* partial_loss =
      p.partial_loss + (image * p.row_tiles + row_tile) * p.col_tiles + blockIdx.x;
  if (first_row >= rows || first_col >= rows) {
    if (thread == 0) *partial_loss = 0;
    return;
  }
  for (int r = thread; r < Tile::kRows; r += Tile::kThreads) {
    shared.rows[r] = load_loss_side(p, begin, static_cast<int>(first_row) + r, rows, -1);
  }
  for (int c = thread; c < Tile::kCols; c += Tile::kThreads) {
    shared.cols[c] = load_loss_side(p, begin, first_col + c, rows, -2);
  }
  __syncthreads();
  typename Tile::Fragment dots;
  dot_products<Tile>(
      dots, p.units, begin, [&](int r) { return shared.rows[r].index; },
      [&](int c) { return shared.cols[c].index; }, shared.stages);
  float projections[Tile::kM][2] = {};
  const double loss = warp_sum(static_cast<double>(pair_terms<Tile>(p, dots, shared, projections)));
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = projections[m][half];
      sum += __shfl_xor_sync(kFullWarp, sum, 1);
      sum += __shfl_xor_sync(kFullWarp, sum, 2);
      if (thread % 4 == 0) {
        shared.projections[Tile::warp() % Tile::kWarpsN][Tile::row(m, 2 * half)] = sum;
      }
    }
  }
  if (Tile::lane() == 0) shared.losses[Tile::warp()] = loss;
  __syncthreads();
  if (p.gradient != nullptr) store_derivatives<Tile>(p, image, first_col, shared);
  if (thread != 0) return;
  double sum = 0;
  for (int warp = 0; warp < Tile::kThreads / kWarpSize; ++warp) sum += shared.losses[warp];
  *partial_loss = sum / (static_cast<double>(rows) * static_cast<double>(rows)) /
                  static_cast<double>(p.batch_images);
}

template <typename Tile>
struct GradientStorage {
  struct alignas(16) Stage {
    __half derivatives[2][Tile::kRows][kDepth];
    __half units[Tile::kParts][kDepth][Tile::kCols + kPiece];  // a piece more: see PairLossStorage
  };
  Stage stages[Tile::kStages];
};

// The pieces of kDepth neighbouring unit vectors that a thread brings to shared memory at every
// step, kCols components wide from first_d on: one of every kAtOnce-th vector.
template <typename Tile>
class UnitCopies {
 public:
  __device__ __forceinline__ UnitCopies(const UnitVectors& units, int64_t begin, int rows,
                                        int first_d)
      : piece_(threadIdx.x % kPieces * kPiece),
        part_(threadIdx.x / kPieces % Tile::kParts),
        k_(threadIdx.x / (kPieces * Tile::kParts)),
        left_(first_d + piece_ < units.pitch ? rows - k_ : 0),
        stride_(kAtOnce * Tile::kParts * units.pitch),
        from_(units.parts + ((begin + k_) * Tile::kParts + part_) * units.pitch + first_d +
              piece_) {}

  // Zeros stand for what lies beyond the image or the components. Goes on to the next step.
  __device__ __forceinline__ void start(
      __half (&units)[Tile::kParts][kDepth][Tile::kCols + kPiece]) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      copy_async_16(&units[part_][k_ + i * kAtOnce][piece_], from_, i * kAtOnce < left_);
      from_ += stride_;
    }
    left_ -= kDepth;
  }

 private:
  static constexpr int kPieces = Tile::kCols / kPiece;
  static constexpr int kAtOnce = Tile::kThreads / (kPieces * Tile::kParts);
  static constexpr int kCopies = kDepth / kAtOnce;
  static_assert(kDepth % kAtOnce == 0);

  int piece_, part_, k_, left_;
  int64_t stride_;
  const __half* from_;
};

// sums = G [kRows, all columns] of rows first_row .. times components first_d .. of unit vectors.
template <typename Tile>
__device__ __forceinline__ void gradient_products(typename Tile::Fragment& sums,
                                                  const SimilarityLossParameters& p, int image,
                                                  int first_row, int first_d,
                                                  GradientStorage<Tile>& shared) {
  const int lane = Tile::lane(), rows = static_cast<int>(p.rois.rows(image));
  const int warp_row = Tile::warp() / Tile::kWarpsN * Tile::kRowsPerWarp;
  const int warp_col = Tile::warp() % Tile::kWarpsN * Tile::kColsPerWarp;
  SideCopies<Tile::kThreads, 2, Tile::kRows> derivatives(
      p.derivatives_of(image, first_row), p.derivative_pitch,
      [&](int r) { return first_row + r < rows ? r : 0; });
  UnitCopies<Tile> units(p.units, p.rois.begin[image], rows, first_d);

  const auto load = [&](int, int stage) {
    derivatives.start(&shared.stages[stage].derivatives[0][0][0]);
    units.start(shared.stages[stage].units);
  };
  const auto compute = [&](int stage) {
    const auto& from = shared.stages[stage];
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      multiply_parts<Tile, 2, Tile::kParts>(
          sums,
          [&](uint32_t (&a)[4], int part, int m) {
            const int r = warp_row + m * 16 + lane % 16;
            load_matrices(a, &from.derivatives[part][r][swizzled(r, k / kPiece + lane / 16)]);
          },
          [&](uint32_t (&b)[4], int part, int n) {
            load_matrices_transposed(b, &from.units[part][k + lane / 8 % 2 * 8 + lane % 8]
                                                   [warp_col + n * 16 + lane / 16 * kPiece]);
          });
    }
  };
  Tile::clear(sums);
  pipeline<Tile::kStages>(ceil_div(rows, kDepth), load, compute);
}

// Projects the products on the sphere's tangent and scales them.
template <typename Tile>
__device__ __forceinline__ void store_gradient(const typename Tile::Fragment& sums,
                                               const SimilarityLossParameters& p, int image,
                                               int first_row, int first_d) {
  const int rows = static_cast<int>(p.rois.rows(image));
  const float mean = 2 / (static_cast<float>(rows) * static_cast<float>(rows) *
                          static_cast<float>(p.batch_images));
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int index = first_row + Tile::row(m, 2 * half);
      if (index >= rows) continue;
      const int64_t row = p.rois.begin[image] + index;
      const float inverse = p.inverse_norm[row];
      float projection = 0;
      // Below eps the norm counts as eps and does not depend on the vector.
      if (!(inverse >= inverse_norm(0.0f))) {
        const float* parts = p.projections_of(image, index);
        const int64_t tiles = ceil_div<int64_t>(rows, p.tile_cols);
        for (int64_t tile = 0; tile < tiles; ++tile) projection += parts[tile];
        projection *= p.units.scale[row];
      }
      const __half* unit_parts = p.units.parts + row * Tile::kParts * p.units.pitch;
#pragma unroll
      for (int n = 0; n < Tile::kN; ++n) {
        const int d = first_d + Tile::col(n, 0);  // even, and the pitch is too
        if (d >= p.dimensions) continue;
        const auto high = *reinterpret_cast<const Vector<__half, 2>*>(unit_parts + d);
        Vector<__half, 2> low{};
        if (Tile::kParts == 2) {
          low = *reinterpret_cast<const Vector<__half, 2>*>(unit_parts + p.units.pitch + d);
        }
        Vector<float, 2> values;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float unit = __half2float(high.values[e]);
          if (Tile::kParts == 2) unit += __half2float(low.values[e]);
          values.values[e] = (sums[m][n][2 * half + e] - projection * unit) * (inverse * mean);
        }
        float* to = p.gradient + row * p.dimensions + d;
        if (p.dimensions % 2 == 0) {
          *reinterpret_cast<Vector<float, 2>*>(to) = values;
        } else {
          to[0] = values.values[0];
          if (d + 1 < p.dimensions) to[1] = values.values[1];
        }
      }
    }
  }
}

// Block (x, y, z): components of tile x, rows of tile y of those that the launch takes, of image z.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    loss_gradient_kernel(const __grid_constant__ SimilarityLossParameters p) {
  const int image = blockIdx.z;
  const int64_t first_row = p.first_row + static_cast<int64_t>(blockIdx.y) * Tile::kRows;
  const int first_d = static_cast<int>(blockIdx.x) * Tile::kCols;
  if (first_row >= p.rois.rows(image)) return;
  typename Tile::Fragment sums;
  gradient_products<Tile>(sums, p, image, static_cast<int>(first_row), first_d,
                          shared_storage<GradientStorage<Tile>>());
  store_gradient<Tile>(sums, p, image, static_cast<int>(first_row), first_d);
}

constexpr int kSumThreads = 256;

struct SumStorage {
  double warps[kSumThreads / kWarpSize];
};

// One block; the order of the additions depends on `count` alone.
template <typename T>
__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(const double* __restrict__ values, int64_t count, T* __restrict__ result) {
  auto& shared = shared_storage<SumStorage>();
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kSumThreads) sum += values[i];
  sum = warp_sum(sum);
  if (threadIdx.x % kWarpSize == 0) shared.warps[threadIdx.x / kWarpSize] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  sum = 0;
  for (int warp = 0; warp < kSumThreads / kWarpSize; ++warp) sum += shared.warps[warp];
  *result = static_cast<T>(sum);
}

template <typename T, typename Stream>
void launch_sum(const double* values, int64_t count, T* result, Stream stream) {
  launch(sum_kernel<T>, dim3(1), kSumThreads, sizeof(SumStorage), stream, values, count, result);
}

template <int kParts>
using PairTiles = Tiles<Tile<128, 128, 4, 4, 2, kParts>>;
// 64 x 32 per warp read less of shared memory than 32 x 32, and there is nothing else to hide.
template <int kParts>
using GradientTiles = Tiles<Tile<128, 128, 2, 4, 2, kParts>>;

// How the work on a batch is cut, the same for all of its launches.
struct LossTiling {
  TileSize pairs, gradient;
  int64_t largest;     // image of the batch
  int64_t chunk_rows;  // the rows of each image that a launch takes: a multiple of kRowUnit

  int64_t row_tiles() const { return ceil_div(largest, shape_of<PairTiles<1>>(pairs).rows); }
  int64_t col_tiles() const { return ceil_div(largest, shape_of<PairTiles<1>>(pairs).cols); }
  int64_t derivative_pitch() const { return ceil_div<int64_t>(largest, kDepth) * kDepth; }
};

constexpr int64_t kRowUnit = 128;                       // a multiple of every tile's rows
constexpr int64_t kMostUnits = 8192;                    // a grid has at most 65535 rows of tiles
constexpr int64_t kMostDerivatives = int64_t{1} << 27;  // halves that a launch keeps: 256 MB

// counts: RoIs of each image.
template <typename Counts>
LossTiling loss_tiling(const Counts& counts, int64_t dimensions, bool with_grad) {
  LossTiling tiling{};
  for (const int64_t count : counts) tiling.largest = std::max(tiling.largest, count);
  tiling.pairs = largest_tile<PairTiles<1>>([&](const TileShape& tile) {
    int64_t tiles = 0;
    for (const int64_t count : counts) tiles += tile.count(count, count);
    return tiles;
  });
  tiling.gradient = largest_tile<GradientTiles<1>>([&](const TileShape& tile) {
    int64_t tiles = 0;
    for (const int64_t count : counts) tiles += tile.count(count, dimensions);
    return tiles;
  });
  int64_t units = std::min(kMostUnits, ceil_div(tiling.largest, kRowUnit));
  if (with_grad && units > 0) {
    const int64_t images = std::min<int64_t>(counts.size(), kImagesPerLaunch);
    units = std::min(units, kMostDerivatives / (2 * tiling.derivative_pitch() * images * kRowUnit));
  }
  tiling.chunk_rows = std::max<int64_t>(units, 1) * kRowUnit;
  return tiling;
}

// The images of p.rois.
template <int kParts, typename T, typename Stream>
void launch_similarity_loss(SimilarityLossParameters p, const T* embeddings,
                            const LossTiling& tiling, Stream stream) {
  const auto images = static_cast<unsigned>(p.rois.count);
  if (p.rois.total() > 0) {
    const dim3 grid(
        static_cast<unsigned>(ceil_div<int64_t>(p.rois.total(), kLossPrepareThreads / kWarpSize)));
    const auto kernel = components_at_once(embeddings, p.dimensions) == 4
                            ? prepare_loss_kernel<kParts, 4, T>
                            : prepare_loss_kernel<kParts, 1, T>;
    launch(kernel, grid, kLossPrepareThreads, 0, stream, p, embeddings);
  }
  for (p.first_row = 0; p.first_row < tiling.largest; p.first_row += tiling.chunk_rows) {
    const int64_t rows = std::min(tiling.chunk_rows, tiling.largest - p.first_row);
    with_tile<PairTiles<kParts>>(tiling.pairs, [&](auto tile) {
      using Tile = decltype(tile);
      const dim3 grid(static_cast<unsigned>(tiling.col_tiles()),
                      static_cast<unsigned>(ceil_div<int64_t>(rows, Tile::kRows)), images);
      launch(pair_loss_kernel<Tile>, grid, Tile::kThreads, sizeof(PairLossStorage<Tile>), stream,
             p);
    });
    if (p.gradient == nullptr || p.dimensions == 0) continue;
    with_tile<GradientTiles<kParts>>(tiling.gradient, [&](auto tile) {
      using Tile = decltype(tile);
      const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(p.dimensions, Tile::kCols)),
                      static_cast<unsigned>(ceil_div<int64_t>(rows, Tile::kRows)), images);
      launch(loss_gradient_kernel<Tile>, grid, Tile::kThreads, sizeof(GradientStorage<Tile>),
             stream, p);
    });
  }
}

}  // namespace d2_ssod
