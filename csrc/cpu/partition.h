#pragma once

// Which rows belong together, and how they are cut into tasks.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace d2_ssod {

// Row numbers, image after image: those of image i are index[offsets[i]] to index[offsets[i + 1] -
// 1].
struct RowsByImage {
  std::vector<int64_t> index;
  std::vector<int64_t> offsets{0};
};

// The rows of each image whose flag is `value`.
inline RowsByImage select_rows(const uint8_t* flags, const std::vector<int64_t>& offsets,
                               bool value) {
  RowsByImage rows;
  rows.index.reserve(offsets.back());
  for (size_t image = 0; image + 1 < offsets.size(); ++image) {
    for (int64_t row = offsets[image]; row < offsets[image + 1]; ++row) {
      if ((flags[row] != 0) == value) rows.index.push_back(row);
    }
    rows.offsets.push_back(static_cast<int64_t>(rows.index.size()));
  }
  return rows;
}

inline RowsByImage all_rows(std::vector<int64_t> offsets) {
  std::vector<int64_t> index(offsets.back());
  std::iota(index.begin(), index.end(), 0);
  return {std::move(index), std::move(offsets)};
}

// Rows begin..end-1 of one image.
struct Chunk {
  int64_t image, begin, end;
};

// Chunks of at most `size`, never across images; independent of the number of threads.
inline std::vector<Chunk> cut(const std::vector<int64_t>& offsets, int64_t size) {
  std::vector<Chunk> chunks;
  for (int64_t image = 0; image + 1 < static_cast<int64_t>(offsets.size()); ++image) {
    for (int64_t begin = offsets[image]; begin < offsets[image + 1]; begin += size) {
      const int64_t rest = offsets[image + 1] - begin;
      chunks.push_back({image, begin, begin + (rest < size ? rest : size)});
    }
  }
  return chunks;
}

// For each image the number of its first chunk, and at the end the number of chunks.
inline std::vector<int64_t> first_chunks(const std::vector<Chunk>& chunks, int64_t num_images) {
  std::vector<int64_t> first(num_images + 1, 0);
  for (const Chunk& chunk : chunks) ++first[chunk.image + 1];
  for (int64_t image = 0; image < num_images; ++image) first[image + 1] += first[image];
  return first;
}

// Images first..end-1.
struct ImageRange {
  int64_t first, end;
};

// All images, in ranges that have at most `most_panels` panels, or a single image.
inline std::vector<ImageRange> group_images(const std::vector<int64_t>& first_panel,
                                            int64_t most_panels) {
  std::vector<ImageRange> groups;
  for (int64_t image = 0; image + 1 < static_cast<int64_t>(first_panel.size()); ++image) {
    if (!groups.empty() &&
        first_panel[image + 1] - first_panel[groups.back().first] <= most_panels) {
      groups.back().end = image + 1;
    } else {
      groups.push_back({image, image + 1});
    }
  }
  return groups;
}

}  // namespace d2_ssod
