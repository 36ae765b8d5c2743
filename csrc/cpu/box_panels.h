#pragma once

// Boxes side by side in vectors, and the largest overlap of one box with many.

#include "core/box.h"
#include "cpu/parallel.h"
#include "cpu/partition.h"
#include "cpu/tile.h"

namespace d2_ssod {

// A panel of boxes: x1, y1, x2, y2, area, of kPanelColumns numbers each. Missing boxes are all 0:
// they overlap nothing.
constexpr int64_t kBoxFields = 5;

template <typename T>
inline void place_box(const Box<T>& box, int64_t column, int64_t columns, T* panel) {
  panel[column] = box.x1;
  panel[columns + column] = box.y1;
  panel[2 * columns + column] = box.x2;
  panel[3 * columns + column] = box.y2;
  panel[4 * columns + column] = box.area;
}

// The boxes that others are compared with, each image's in panels of its own.
template <typename T>
struct BoxPanels {
  // Boxes number rows.index[...] of `boxes`, Tensor[N, 4] contiguous.
  BoxPanels(const T* boxes, const RowsByImage& rows)
      : columns(panel_columns<T>()),
        chunks(cut(rows.offsets, columns)),
        first(first_chunks(chunks, static_cast<int64_t>(rows.offsets.size()) - 1)),
        memory(size()) {
    std::fill_n(memory.data(), size(), T(0));
    for (size_t panel = 0; panel < chunks.size(); ++panel) {
      for (int64_t i = chunks[panel].begin; i < chunks[panel].end; ++i) {
        place_box(load_box(boxes + 4 * rows.index[i]), i - chunks[panel].begin, columns, at(panel));
      }
    }
  }
  int64_t num_images() const { return static_cast<int64_t>(first.size()) - 1; }
  int64_t size() const { return static_cast<int64_t>(chunks.size()) * kBoxFields * columns; }
  T* at(int64_t panel) const { return memory.data() + panel * kBoxFields * columns; }
  int64_t count(int64_t image) const { return first[image + 1] - first[image]; }

  int64_t columns;
  std::vector<Chunk> chunks;
  std::vector<int64_t> first;
  Scratch<T> memory;
};

template <typename Isa, typename T>
D2_SSOD_INLINE Box<typename Isa::template Vector<T>> load_boxes(const T* panel, int vector) {
  using Vector = typename Isa::template Vector<T>;
  constexpr int64_t kColumns = kPanelColumns<Isa, T>;
  const T* first = panel + vector * Isa::template kLanes<T>;
  return {load<Vector>(first), load<Vector>(first + kColumns), load<Vector>(first + 2 * kColumns),
          load<Vector>(first + 3 * kColumns), load<Vector>(first + 4 * kColumns)};
}

template <typename Vector, typename T>
D2_SSOD_INLINE Box<Vector> broadcast_box(const Box<T>& box) {
  return {broadcast<Vector>(box.x1), broadcast<Vector>(box.y1), broadcast<Vector>(box.x2),
          broadcast<Vector>(box.y2), broadcast<Vector>(box.area)};
}

template <typename T>
struct Overlaps {
  T iou, iof;
};

// Largest IoU and IoF of `box` with the boxes of `panels`; 0 with none. Ignores NaN among the
// panels; NaN if the box has one.
template <typename Isa, typename T, bool kWithIof>
D2_SSOD_INLINE Overlaps<T> largest_overlaps(const Box<T>& box, const BoxPanels<T>& others_of,
                                            int64_t image) {
  const T* panels = others_of.at(others_of.first[image]);
  const int64_t num_panels = others_of.count(image);
  using Vector = typename Isa::template Vector<T>;
  const Box<Vector> row = broadcast_box<Vector>(box);
  Vector largest_iou = {}, largest_intersection = {};
  for (int64_t panel = 0; panel < num_panels; ++panel) {
#pragma GCC unroll 2
    for (int vector = 0; vector < kPanelVectors; ++vector) {
      const auto others = load_boxes<Isa, T>(panels, vector);
      const Vector intersection = box_intersection(row, others);
      largest_iou =
          upper(intersection / box_union(row.area, others.area, intersection), largest_iou);
      if (kWithIof) largest_intersection = upper(intersection, largest_intersection);
    }
    panels += kBoxFields * kPanelColumns<Isa, T>;
  }
  return {largest_lane<T>(largest_iou) + zero_or_nan(box),
          largest_lane<T>(largest_intersection) / nonzero(box.area) + zero_or_nan(box)};
}

}  // namespace d2_ssod
