#pragma once

// Eq. 2-5 in two launches for up to kImagesPerLaunch images, whatever their sizes:
// 1. prepare_weights_kernel: per RoI the unit vector, and all that needs no pair of RoIs; per image
//    the order of foreground and background. Not part of 2, whose blocks need all of it.
// 2. uncertainty_weights_kernel: tiles of background x foreground; maxima, then weights.
//
// Napkin, float32, for B background and F foreground rows per image (an H200: 4.3 TB/s; 990 TFLOP/s
// of dense half products on paper, of which mma.sync reaches about 60%; 30 T simple
// instructions/s).
//   arithmetic: 3 products of 2 B F D FLOP; about 22 instructions per pair for the overlaps.
//   bytes: R D 4 read, R D 4 written, and read again mostly from the L2 cache.
//   16 x 512, F 128, D 1024: 4.8 GFLOP -> 8 us; 67 MB -> 16 us, so the preparation bounds it.
//   1 x 8192, F 2048, D 256: 19 GFLOP -> 32 us; 13 M pairs -> 9 us; 17 MB -> 4 us.
//   1 x 65536, F 8192, D 128: 361 GFLOP -> 0.6 ms; 470 M pairs -> 0.35 ms; 67 MB -> 16 us.
// With half or bfloat16 embeddings a third of the arithmetic and half of the bytes.

#include "core/gompertz.h"
#include "cuda/common/foreground.cuh"
#include "cuda/common/overlaps.cuh"
#include "cuda/common/similarity_tile.cuh"

namespace d2_ssod {

struct UncertaintyParameters {
  const float* boxes;            // [R, 4]
  const uint8_t* is_foreground;  // [R]
  bool released;                 // variant "released", else "paper"
  const float* gt_boxes;         // [G, 4]; null also where G is 0, so it tells nothing
  UnitVectors units;
  ForegroundOrder foreground;
  int* arrivals;         // [R]: blocks that are done with the row tile that starts here
  float* hidden;         // [R]: max IoF with the ground truth; unused in "paper"
  float* weights;        // [R]
  float* max_iou;        // [R]; in "paper" it collects the maximum over the blocks
  float* dissimilarity;  // [R]; collects max_j of Eq. 4 over the blocks, before it becomes Eq. 4
  WeightCurve<float> curve;
  ImageTable rois, gts;

  // 0, or NaN if row's own box or embedding is unusable.
  __device__ float own_box(int64_t row) const { return zero_or_nan(load_box(boxes + 4 * row)); }
  __device__ float own(int64_t row) const { return own_box(row) + zero_or_nan(units.scale[row]); }

  // g(IoU); an image without ground truth knows nothing against its RoIs.
  __device__ float overlap_factor_of(int image, float iou) const {
    const bool no_reference = released && gts.rows(image) == 0;
    return no_reference ? 1 + zero_or_nan(iou) : overlap_factor(iou, curve);
  }
};

constexpr int kPrepareThreads = kOrderThreads;
constexpr int kPrepareRows = kPrepareThreads / kWarpSize;

// Largest IoU and IoF of a RoI with its image's ground truth, over the lanes of a warp.
__device__ inline void ground_truth_overlaps(const UncertaintyParameters& p, int64_t row, int image,
                                             float& max_iou, float& max_iof) {
  const Box<float> box = load_box(p.boxes + 4 * row);
  max_iou = max_iof = 0;
  for (int64_t g = p.gts.begin[image] + threadIdx.x % kWarpSize; g < p.gts.begin[image + 1];
       g += kWarpSize) {
    const Box<float> gt = load_box(p.gt_boxes + 4 * g);
    max_iou = fmaxf(max_iou, box_iou(box, gt));  // fmaxf passes over NaN
    max_iof = fmaxf(max_iof, box_iof(box, gt));
  }
  max_iou = lanes_max<kWarpSize>(max_iou);
  max_iof = lanes_max<kWarpSize>(max_iof);
}

// Blocks 0 .. images - 1 order an image's rows each; then every warp prepares a row.
template <int kParts, int kAtOnce, typename T>
__global__ void __launch_bounds__(kPrepareThreads)
    prepare_weights_kernel(const __grid_constant__ UncertaintyParameters p,
                           const T* __restrict__ embeddings, int64_t dimensions) {
  const int64_t block = blockIdx.x;
  if (block < p.rois.count) {
    const int image = static_cast<int>(block);
    order_rows(p.is_foreground, p.rois.begin[image], p.rois.begin[image + 1], p.foreground, image,
               shared_storage<OrderStorage>());
    return;
  }
  const int64_t row =
      p.rois.begin[0] + (block - p.rois.count) * kPrepareRows + threadIdx.x / kWarpSize;
  if (row >= p.rois.begin[p.rois.count]) return;
  const float inverse =
      write_unit_vector<kParts, kAtOnce>(embeddings + row * dimensions, dimensions, row, p.units);
  const bool foreground = p.is_foreground[row] != 0;
  const int image = p.rois.find(row);
  float iou = 0, iof = 0;
  if (p.released) ground_truth_overlaps(p, row, image, iou, iof);
  if (threadIdx.x % kWarpSize != 0) return;

  const float own_box = p.own_box(row), own = own_box + zero_or_nan(inverse);
  p.arrivals[row] = 0;
  if (p.released) {
    p.hidden[row] = iof;
    iou += own_box;
  } else if (foreground) {
    const Box<float> box = load_box(p.boxes + 4 * row);
    iou = box_iou(box, box) + own_box;
  }
  p.max_iou[row] = iou;
  p.dissimilarity[row] = foreground ? 1 + own : 0;
  if (foreground) p.weights[row] = (p.released ? p.overlap_factor_of(image, iou) : 1) + own;
}

// A RoI as the pairs see it.
struct alignas(16) PairSide {
  Box<float> box;
  float scale;  // of the unit vector; NaN if it has none
  float inverse_area;
  int index;  // row within the image, -1 beyond the end
};

template <typename Tile>
struct UncertaintyStorage {
  typename Tile::Stage stages[Tile::kStages];
  PairSide rows[Tile::kRows], cols[Tile::kCols];
  int last;
};

// In "released" the overlaps are with the ground truth and known already: a box without area
// leaves them alone.
__device__ inline PairSide load_side(const UncertaintyParameters& p, int64_t begin, int index) {
  PairSide side{{}, 0, 1, index};
  if (index < 0) return side;
  side.scale = p.units.scale[begin + index];
  if (p.released) return side;
  side.box = load_box(p.boxes + 4 * (begin + index));
  // Finite, so that no product with an intersection is NaN.
  side.inverse_area = lower(1 / nonzero(side.box.area), 3e38f);
  return side;
}

// The largest IoU and the largest s (1 - IoF) of one row so far.
struct RowMaxima {
  LargestIou<float> iou;
  float similarity = 0;

  // Pairs with NaN lose every comparison.
  __device__ __forceinline__ void add(const PairSide& row, const PairSide& col, float dot) {
    const float intersection = box_intersection(row.box, col.box);
    iou.add(intersection, row.box.area + col.box.area - intersection);
    const float cosine = absolute_cosine(dot, row.scale, col.scale);
    similarity = fmaxf(similarity, visible_similarity(cosine, intersection * row.inverse_area));
  }
};

// Those of the rows of a thread; [2 m + half]. One dimension: of an array of arrays, nvcc (up
// to 13.0 at least) gives only the first its members' initial values, and zeros to the others.
template <typename Tile>
using ThreadMaxima = RowMaxima[2 * Tile::kM];

template <typename Tile>
__device__ __forceinline__ void update_maxima(ThreadMaxima<Tile>& maxima,
                                              const typename Tile::Fragment& dots,
                                              const PairSide* rows, const PairSide* cols) {
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const PairSide row = rows[Tile::row(m, 2 * half)];
#pragma unroll
      for (int n = 0; n < Tile::kN; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          maxima[2 * m + half].add(row, cols[Tile::col(n, e)], dots[m][n][2 * half + e]);
        }
      }
    }
  }
}

// Eq. 4 and 5 of a background row, once all of its maxima are in.
__device__ inline void finish_row(const UncertaintyParameters& p, int image, int64_t row) {
  const float iou = __ldcg(p.max_iou + row) + p.own_box(row);
  const float visible = p.released ? 1 - p.hidden[row] : 1;
  const float dissimilarity = 1 - __ldcg(p.dissimilarity + row) * visible + p.own(row);
  p.max_iou[row] = iou;
  p.dissimilarity[row] = dissimilarity;
  p.weights[row] = p.overlap_factor_of(image, iou) * dissimilarity_factor(dissimilarity, p.curve);
}

// Block (x, y, z): x-th tile of background rows of image y, against every gridDim.z-th tile of its
// foreground. The last block to arrive at a row tile turns the maxima into weights. Maxima do not
// depend on the order of arrival, so results are reproducible.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    uncertainty_weights_kernel(const __grid_constant__ UncertaintyParameters p) {
  auto& shared = shared_storage<UncertaintyStorage<Tile>>();
  const int image = blockIdx.y, thread = threadIdx.x;
  const int64_t begin = p.rois.begin[image], end = p.rois.begin[image + 1];
  const int64_t num_foreground = p.foreground.num_foreground[image];
  const int64_t num_background = end - begin - num_foreground;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * Tile::kRows;
  const int64_t col_tiles = ceil_div<int64_t>(num_foreground, Tile::kCols);
  const int64_t sharers = col_tiles < 1 ? 1 : (col_tiles < gridDim.z ? col_tiles : gridDim.z);
  if (first_row >= num_background || blockIdx.z >= sharers) return;

  for (int r = thread; r < Tile::kRows; r += Tile::kThreads) {
    const int64_t rank = first_row + r;
    shared.rows[r] =
        load_side(p, begin, rank < num_background ? p.foreground.background(end, rank) : -1);
  }
  __syncthreads();
  ThreadMaxima<Tile> maxima = {};
  for (int64_t tile = blockIdx.z; tile < col_tiles; tile += sharers) {
    for (int c = thread; c < Tile::kCols; c += Tile::kThreads) {
      const int64_t rank = tile * Tile::kCols + c;
      shared.cols[c] =
          load_side(p, begin, rank < num_foreground ? p.foreground.foreground(begin, rank) : -1);
    }
    __syncthreads();
    typename Tile::Fragment dots;
    dot_products<Tile>(
        dots, p.units, begin, [&](int r) { return shared.rows[r].index; },
        [&](int c) { return shared.cols[c].index; }, shared.stages);
    update_maxima<Tile>(maxima, dots, shared.rows, shared.cols);
    __syncthreads();  // before the next tile overwrites the columns
  }

#pragma unroll
  for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float iou = lanes_max<4>(maxima[2 * m + half].iou.value());
      const float similarity = lanes_max<4>(maxima[2 * m + half].similarity);
      const int index = shared.rows[Tile::row(m, 2 * half)].index;
      if (thread % 4 != 0 || index < 0) continue;
      // Nothing to add to 0; and a NaN that is there already must not meet an integer maximum.
      if (iou > 0) atomic_max(p.max_iou + begin + index, iou);
      if (similarity > 0) atomic_max(p.dissimilarity + begin + index, similarity);
    }
  }
  __threadfence();
  __syncthreads();
  if (thread == 0) shared.last = atomicAdd(p.arrivals + begin + first_row, 1) == sharers - 1;
  __syncthreads();
  if (!shared.last) return;
  __threadfence();
  for (int r = thread; r < Tile::kRows; r += Tile::kThreads) {
    if (shared.rows[r].index >= 0) finish_row(p, image, begin + shared.rows[r].index);
  }
}

// Two blocks of 256 threads per multiprocessor: one's products hide the other's pairs.
template <int kParts>
using WeightTiles = Tiles<Tile<128, 64, 4, 2, 3, kParts>>;

// How the pairs are cut; tests ask for a tile, the operator lets the data decide.
struct Tiling {
  TileSize size = TileSize::kByData;
  int64_t blocks = 1024;  // about; the grid depends on the data alone
};

template <typename Tile>
int64_t row_tiles(const ImageTable& rois) {
  int64_t tiles = 0;
  for (int image = 0; image < rois.count; ++image) {
    tiles += ceil_div<int64_t>(rois.rows(image), Tile::kRows);
  }
  return tiles;
}

// Tiles there are to do if a quarter of each image's rows is foreground: the host does not know.
inline int64_t expected_tiles(const ImageTable& rois, const TileShape& tile) {
  int64_t tiles = 0;
  for (int image = 0; image < rois.count; ++image) {
    tiles += tile.count(rois.rows(image), ceil_div<int64_t>(rois.rows(image), 4));
  }
  return tiles;
}

// About `blocks` blocks: the columns of a row tile are shared out as far as that takes.
template <typename Tile, typename Stream>
void launch_uncertainty_tiles(const UncertaintyParameters& p, int64_t blocks, Stream stream) {
  const int64_t largest = largest_image(p.rois);
  const int64_t wanted = ceil_div<int64_t>(blocks, row_tiles<Tile>(p.rois));
  const int64_t most = ceil_div<int64_t>(largest, Tile::kCols);
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(largest, Tile::kRows)),
                  static_cast<unsigned>(p.rois.count),
                  static_cast<unsigned>(wanted < most ? wanted : most));
  launch(uncertainty_weights_kernel<Tile>, grid, Tile::kThreads, sizeof(UncertaintyStorage<Tile>),
         stream, p);
}

template <int kParts, typename T, typename Stream>
void launch_prepare_weights(const UncertaintyParameters& p, const T* embeddings, int64_t dimensions,
                            Stream stream) {
  const dim3 grid(
      static_cast<unsigned>(p.rois.count + ceil_div<int64_t>(p.rois.total(), kPrepareRows)));
  const auto kernel = components_at_once(embeddings, dimensions) == 4
                          ? prepare_weights_kernel<kParts, 4, T>
                          : prepare_weights_kernel<kParts, 1, T>;
  launch(kernel, grid, kPrepareThreads, sizeof(OrderStorage), stream, p, embeddings, dimensions);
}

// The images of p.rois.
template <int kParts, typename T, typename Stream>
void launch_uncertainty_weights(const UncertaintyParameters& p, const T* embeddings,
                                int64_t dimensions, const Tiling& tiling, Stream stream) {
  if (p.rois.total() == 0) return;
  launch_prepare_weights<kParts>(p, embeddings, dimensions, stream);
  const TileSize size = tiling.size == TileSize::kByData
                            ? largest_tile<WeightTiles<kParts>>([&](const TileShape& tile) {
                                return expected_tiles(p.rois, tile);
                              })
                            : tiling.size;
  with_tile<WeightTiles<kParts>>(
      size, [&](auto tile) { launch_uncertainty_tiles<decltype(tile)>(p, tiling.blocks, stream); });
}

}  // namespace d2_ssod
