#pragma once

// IoU and IoF of all pairs.
//
// Napkin (an H200: 4.3 TB/s, 30 T simple instructions/s): 4 N M bytes written, 16 (N + M) read;
// about 22 instructions per pair, of which the quotient takes half.
//   2000 x 500: 4 MB -> 1 us; the launch takes longer
//   65536 x 8192: 2.1 GB -> 0.5 ms; 537 M pairs -> 0.4 ms: bound by memory, just

#include "cuda/common/primitives.cuh"

namespace d2_ssod {

struct IouOf {
  template <typename T>
  __device__ __forceinline__ T operator()(const Box<T>& i, const Box<T>& j) const {
    return box_iou(i, j);
  }
};

struct IofOf {
  template <typename T>
  __device__ __forceinline__ T operator()(const Box<T>& i, const Box<T>& j) const {
    return box_iof(i, j);
  }
};

// A block covers block_rows x (kPairThreads kVector); a thread keeps its columns for all rows.
// Fewer rows where there are few pairs, so that several blocks share each multiprocessor.
constexpr int kPairThreads = 128, kMostPairRows = 16, kFewestPairRows = 4;
constexpr int64_t kEnoughPairBlocks = 384;

template <typename Overlap, typename T, int kVector>
__global__ void __launch_bounds__(kPairThreads)
    pairwise_overlap_kernel(const T* __restrict__ boxes1, const T* __restrict__ boxes2,
                            T* __restrict__ result, int64_t rows, int64_t cols, unsigned col_blocks,
                            int block_rows) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / col_blocks) * block_rows;
  const int64_t col =
      (static_cast<int64_t>(blockIdx.x % col_blocks) * kPairThreads + threadIdx.x) * kVector;
  if (col >= cols) return;  // cols is a multiple of kVector
  Box<T> others[kVector];
#pragma unroll
  for (int v = 0; v < kVector; ++v) others[v] = load_box(boxes2 + 4 * (col + v));
  const int64_t left = rows - first_row;
  const int count = static_cast<int>(left < block_rows ? left : block_rows);
#pragma unroll 4
  for (int r = 0; r < count; ++r) {
    // The same for all threads: comes from the L1 cache.
    const Box<T> box = load_box(boxes1 + 4 * (first_row + r));
    Vector<T, kVector> overlaps;
#pragma unroll
    for (int v = 0; v < kVector; ++v) overlaps.values[v] = Overlap()(box, others[v]);
    *reinterpret_cast<Vector<T, kVector>*>(result + (first_row + r) * cols + col) = overlaps;
  }
}

template <typename Overlap, typename T, int kVector, typename Stream>
void launch_pairwise_tiles(const T* boxes1, const T* boxes2, T* result, int64_t rows, int64_t cols,
                           Stream stream) {
  const int64_t col_blocks = ceil_div<int64_t>(cols, kPairThreads * kVector);
  int block_rows = kMostPairRows;
  while (block_rows > kFewestPairRows &&
         ceil_div<int64_t>(rows, block_rows) * col_blocks < kEnoughPairBlocks) {
    block_rows /= 2;
  }
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(rows, block_rows) * col_blocks));
  launch(pairwise_overlap_kernel<Overlap, T, kVector>, grid, kPairThreads, 0, stream, boxes1,
         boxes2, result, rows, cols, static_cast<unsigned>(col_blocks), block_rows);
}

// result [rows, cols], aligned to 16 bytes.
template <typename Overlap, typename T, typename Stream>
void launch_pairwise_overlap(const T* boxes1, const T* boxes2, T* result, int64_t rows,
                             int64_t cols, Stream stream) {
  if (rows == 0 || cols == 0) return;
  constexpr int kVector = sizeof(T) == 4 ? 4 : 1;
  if (cols % kVector == 0) {
    launch_pairwise_tiles<Overlap, T, kVector>(boxes1, boxes2, result, rows, cols, stream);
  } else {
    launch_pairwise_tiles<Overlap, T, 1>(boxes1, boxes2, result, rows, cols, stream);
  }
}

}  // namespace d2_ssod
