#pragma once

// Eq. 7 and its derivative in three launches for up to kImagesPerLaunch images:
// 1. prepare_loss_kernel: unit vectors.
// 2. similarity_loss_kernel: a block takes 64 rows of an image, and kCols columns at a time: first
//    cosines on the tensor cores, then the pairs' losses and their derivatives G, which stay in
//    shared memory, then rows of G U. With c_ij = u_i . u_j, L = 1/R^2 sum_ij loss(c_ij):
//      dL/du_i = 2/R^2 sum_j G_ij u_j (the targets are symmetric)
//      dL/df_i = (dL/du_i - u_i (u_i . dL/du_i)) / |f_i|
//    where u_i . sum_j G_ij u_j = sum_j G_ij c_ij, which is known before the product G U is.
// 3. sum_kernel: the blocks' parts of the loss in a fixed order, so that results are reproducible.
//
// Napkin, float32, 16 x 512, D 1024 (an H200: 4.3 TB/s; about 5.5 TB/s from the L2 cache;
// 990 TFLOP/s of dense half products on paper, of which mma.sync reaches about 60%).
//   arithmetic: 2 products of 16 x 2 x 512^2 x D FLOP in 3 parts each: 52 GFLOP -> 87 us.
//   bytes: embeddings read, unit vectors written and read, gradient written: 134 MB -> 31 us.
//   L2: 128 blocks read all unit vectors of their image twice, their own once per 128 columns, and
//   update their gradient once per 128 columns: 7 MB each -> 160 us, so this bounds it.
// The forward alone is half of it, D 128 an eighth; half or bfloat16 embeddings need half of the
// arithmetic and about 60% of the L2 traffic.

#include "cuda/common/similarity_tile.cuh"

namespace d2_ssod {

struct SimilarityLossParameters {
  const float* boxes;      // [R, 4]
  const int64_t* classes;  // [R]; may be null
  UnitVectors units;
  float* inverse_norm;   // [R]
  float* gradient;       // [R, D]; null: the loss alone
  double* partial_loss;  // [images, gridDim.x]
  int64_t dimensions;
  int64_t batch_images;  // of the whole batch, of which `rois` holds some
  float iof_threshold;
  ImageTable rois;
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

template <int kParts>
using LossTile = Tile<64, 128, 2, 4, 2, kParts>;

// G U takes kDepth rows of U at a time, kCols components wide; a piece more per row, so that one
// piece of 8 rows lies in 8 different groups of banks.
template <typename Tile>
struct alignas(16) GradientStage {
  __half units[Tile::kParts][kDepth][Tile::kCols + kPiece];
};

template <typename Tile>
struct LossStorage {
  union {
    typename Tile::Stage cosine[Tile::kStages];
    GradientStage<Tile> gradient[Tile::kStages];
  } stages;
  __half derivatives[2][Tile::kRows][Tile::kCols + kPiece];
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
// vectors are: the sum of halves, always two here); adds to the loss and to each row's sum_j G_ij
// c_ij.
template <typename Tile>
__device__ __forceinline__ float pair_terms(const SimilarityLossParameters& p,
                                            const typename Tile::Fragment& dots,
                                            LossStorage<Tile>& shared,
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

// sums = G [kRows, kCols] of shared memory times components first_d .. first_d + kCols - 1 of the
// unit vectors first_col .. first_col + kCols - 1 of the image.
template <typename Tile>
__device__ __forceinline__ void gradient_products(typename Tile::Fragment& sums,
                                                  const SimilarityLossParameters& p, int64_t begin,
                                                  int rows, int first_col, int first_d,
                                                  LossStorage<Tile>& shared) {
  constexpr int kParts = Tile::kParts, kPieces = Tile::kCols / kPiece;
  const int lane = Tile::lane();
  const int warp_row = Tile::warp() / Tile::kWarpsN * Tile::kRowsPerWarp;
  const int warp_col = Tile::warp() % Tile::kWarpsN * Tile::kColsPerWarp;
  GradientStage<Tile>* stages = shared.stages.gradient;

  // A thread brings one piece of every kAtOnce-th row, and goes from one to the next.
  constexpr int kAtOnce = Tile::kThreads / (kPieces * kParts), kCopies = kDepth / kAtOnce;
  static_assert(kDepth % kAtOnce == 0);
  const int piece = threadIdx.x % kPieces, part = threadIdx.x / kPieces % kParts;
  const int k = threadIdx.x / (kPieces * kParts);
  const int d = first_d + piece * kPiece;
  const int64_t stride = kAtOnce * kParts * p.units.pitch;
  const __half* from =
      p.units.parts + ((begin + first_col + k) * kParts + part) * p.units.pitch + d;
  const int left = d < p.units.pitch ? rows - first_col - k : 0;

  const auto load = [&](int step, int stage) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      copy_async_16(&stages[stage].units[part][k + i * kAtOnce][piece * kPiece], from,
                    step * kDepth + i * kAtOnce < left);
      from += stride;
    }
  };
  int step = 0;
  const auto compute = [&](int stage) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      multiply_parts<Tile, 2, kParts>(
          sums,
          [&](uint32_t (&a)[4], int part, int m) {
            load_matrices(a, &shared.derivatives[part][warp_row + m * 16 + lane % 16]
                                                [step * kDepth + k + lane / 16 * kPiece]);
          },
          [&](uint32_t (&b)[4], int part, int n) {
            load_matrices_transposed(b,
                                     &stages[stage].units[part][k + lane / 8 % 2 * 8 + lane % 8]
                                                         [warp_col + n * 16 + lane / 16 * kPiece]);
          });
    }
    ++step;
  };
  Tile::clear(sums);
  pipeline<Tile::kStages>(Tile::kCols / kDepth, load, compute);
}

// Adds the products of these columns to the gradient; after the last ones projects it on the
// sphere's tangent and scales it. The block is the only one to touch these elements.
template <typename Tile>
__device__ __forceinline__ void store_gradient(const typename Tile::Fragment& sums,
                                               const SimilarityLossParameters& p, int64_t begin,
                                               int rows, int first_d, bool first, bool last,
                                               const LossStorage<Tile>& shared) {
  const float mean = 2 / (static_cast<float>(rows) * static_cast<float>(rows) *
                          static_cast<float>(p.batch_images));
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = Tile::row(m, 2 * half);
      if (shared.rows[r].index < 0) continue;
      const int64_t row = begin + shared.rows[r].index;
      const float inverse = p.inverse_norm[row];
      float projection = 0;
      // Below eps the norm counts as eps and does not depend on the vector.
      if (last && !(inverse >= inverse_norm(0.0f))) {
        for (int warp = 0; warp < Tile::kWarpsN; ++warp) projection += shared.projections[warp][r];
        projection *= shared.rows[r].scale;
      }
#pragma unroll
      for (int n = 0; n < Tile::kN; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int d = first_d + Tile::col(n, e);
          if (d >= p.dimensions) continue;
          float* stored = p.gradient + row * p.dimensions + d;
          float sum = sums[m][n][2 * half + e];
          if (!first) sum += *stored;
          if (last) {
            const __half* parts = p.units.parts + row * Tile::kParts * p.units.pitch + d;
            float unit = __half2float(parts[0]);
            if (Tile::kParts == 2) unit += __half2float(parts[p.units.pitch]);
            sum = (sum - projection * unit) * (inverse * mean);
          }
          *stored = sum;
        }
      }
    }
  }
}

// Block (x, y, z): rows 64 x .. of image y; of the gradient every gridDim.z-th piece of kCols
// components.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    similarity_loss_kernel(const __grid_constant__ SimilarityLossParameters p) {
  auto& shared = shared_storage<LossStorage<Tile>>();
  const int image = blockIdx.y, thread = threadIdx.x;
  const int64_t begin = p.rois.begin[image];
  const int rows = static_cast<int>(p.rois.rows(image)), first_row = blockIdx.x * Tile::kRows;
  double* partial_loss = p.partial_loss + static_cast<int64_t>(image) * gridDim.x + blockIdx.x;
  if (first_row >= rows) {
    if (thread == 0 && blockIdx.z == 0) *partial_loss = 0;
    return;
  }
  for (int r = thread; r < Tile::kRows; r += Tile::kThreads) {
    shared.rows[r] = load_loss_side(p, begin, first_row + r, rows, -1);
  }
  double loss = 0;
  float projections[Tile::kM][2] = {};
  for (int first_col = 0; first_col < rows; first_col += Tile::kCols) {
    for (int c = thread; c < Tile::kCols; c += Tile::kThreads) {
      shared.cols[c] = load_loss_side(p, begin, first_col + c, rows, -2);
    }
    __syncthreads();
    typename Tile::Fragment sums;
    dot_products<Tile>(
        sums, p.units, begin, [&](int r) { return shared.rows[r].index; },
        [&](int c) { return shared.cols[c].index; }, shared.stages.cosine);
    loss += pair_terms<Tile>(p, sums, shared, projections);
    const bool last = first_col + Tile::kCols >= rows;
    if (last) {
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
    }
    __syncthreads();  // derivatives and projections are there; the columns may be overwritten
    if (p.gradient == nullptr) continue;
    for (int d = blockIdx.z * Tile::kCols; d < p.dimensions; d += gridDim.z * Tile::kCols) {
      gradient_products<Tile>(sums, p, begin, rows, first_col, d, shared);
      store_gradient<Tile>(sums, p, begin, rows, d, first_col == 0, last, shared);
    }
  }
  loss = warp_sum(loss);
  if (Tile::lane() == 0) shared.losses[Tile::warp()] = loss;
  __syncthreads();
  if (thread != 0 || blockIdx.z != 0) return;
  double sum = 0;
  for (int warp = 0; warp < Tile::kThreads / kWarpSize; ++warp) sum += shared.losses[warp];
  *partial_loss = sum / (static_cast<double>(rows) * static_cast<double>(rows)) /
                  static_cast<double>(p.batch_images);
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

// How many parts of the loss each image has; `largest` image of the batch.
inline int64_t loss_row_tiles(int64_t largest) {
  return ceil_div<int64_t>(largest, LossTile<1>::kRows);
}

// The images of p.rois; `row_tiles` of the largest image of the batch. Where multiprocessors would
// idle otherwise, several blocks share the components of a gradient, and all compute the cosines.
template <int kParts, typename T, typename Stream>
void launch_similarity_loss(const SimilarityLossParameters& p, const T* embeddings,
                            int64_t row_tiles, Stream stream) {
  constexpr int64_t kEnoughBlocks = 128, kRowsPerBlock = kLossPrepareThreads / kWarpSize;
  using Tile = LossTile<kParts>;
  if (row_tiles == 0) return;
  if (p.rois.total() > 0) {
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(p.rois.total(), kRowsPerBlock)));
    const auto kernel = components_at_once(embeddings, p.dimensions) == 4
                            ? prepare_loss_kernel<kParts, 4, T>
                            : prepare_loss_kernel<kParts, 1, T>;
    launch(kernel, grid, kLossPrepareThreads, 0, stream, p, embeddings);
  }
  const int64_t idle = kEnoughBlocks / (row_tiles * p.rois.count);
  const int64_t pieces = p.gradient == nullptr ? 1 : ceil_div<int64_t>(p.dimensions, Tile::kCols);
  const int64_t shares = idle < pieces ? idle : pieces;
  const dim3 grid(static_cast<unsigned>(row_tiles), static_cast<unsigned>(p.rois.count),
                  static_cast<unsigned>(shares < 1 ? 1 : shares));
  launch(similarity_loss_kernel<Tile>, grid, Tile::kThreads, sizeof(LossStorage<Tile>), stream, p);
}

}  // namespace d2_ssod
