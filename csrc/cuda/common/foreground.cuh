#pragma once

#include "cuda/common/images.cuh"
#include "cuda/common/primitives.cuh"

namespace d2_ssod {

// Sorts the rows of an image into foreground and background on the device, so that nobody has to
// wait for the counts. `order` has one entry per row, the row's place within its image: the
// foreground from the front, the background from the back. `num_foreground` has one entry per
// image.
struct ForegroundOrder {
  int* order;
  int* num_foreground;

  __device__ int foreground(int64_t begin, int64_t rank) const { return order[begin + rank]; }
  __device__ int background(int64_t end, int64_t rank) const { return order[end - 1 - rank]; }
};

constexpr int kOrderThreads = 256;
constexpr int kFlagsPerThread = 8;

struct OrderStorage {
  int warp_counts[kOrderThreads / kWarpSize];
};

// One block of kOrderThreads per image. 64 K rows are 32 rounds of a few hundred cycles.
__device__ inline void order_rows(const uint8_t* is_foreground, int64_t begin, int64_t end,
                                  const ForegroundOrder& out, int image, OrderStorage& shared) {
  const int thread = threadIdx.x, lane = thread % kWarpSize, warp = thread / kWarpSize;
  const int64_t rows = end - begin;
  int64_t found = 0;  // foreground rows so far
  for (int64_t round = 0; round < rows; round += kOrderThreads * kFlagsPerThread) {
    const int64_t first = round + thread * kFlagsPerThread;
    unsigned flags = 0;
    for (int bit = 0; bit < kFlagsPerThread; ++bit) {
      if (first + bit < rows && is_foreground[begin + first + bit] != 0) flags |= 1u << bit;
    }
    const int own = __popc(flags);
    int inclusive = own;
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const int other = __shfl_up_sync(kFullWarp, inclusive, offset);
      if (lane >= offset) inclusive += other;
    }
    if (lane == kWarpSize - 1) shared.warp_counts[warp] = inclusive;
    __syncthreads();
    int64_t rank = found + inclusive - own;
    for (int w = 0; w < kOrderThreads / kWarpSize; ++w) {
      if (w < warp) rank += shared.warp_counts[w];
      found += shared.warp_counts[w];
    }
    for (int bit = 0; bit < kFlagsPerThread && first + bit < rows; ++bit) {
      const int row = static_cast<int>(first + bit);
      if (flags >> bit & 1u) {
        out.order[begin + rank++] = row;
      } else {
        out.order[end - 1 - (row - rank)] = row;  // row - rank: background rows before this one
      }
    }
    __syncthreads();
  }
  if (thread == 0) out.num_foreground[image] = static_cast<int>(found);
}

}  // namespace d2_ssod
