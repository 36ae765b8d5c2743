// IoU and IoF of all pairs, a matrix.
//
// Floor: the result is written once, 4 N M bytes (float32); about 12 vector operations and a
// division per vector of results, so that two cores are near the speed at which they can write to
// the cache.

#include <torch/library.h>

#include <cstring>

#include "cpu/box_panels.h"
#include "inputs.h"

namespace d2_ssod {
namespace {

// Below it a task costs less than handing it to a thread.
constexpr int64_t kPairsPerTask = 32768;

template <typename T>
struct PairwiseArguments {
  const T* boxes1;  // [N, 4]
  const BoxPanels<T>& boxes2;
  int64_t num_boxes1, num_boxes2, rows_per_task;
  bool iof;
  T* result;  // [N, M]
};

template <typename Isa, typename T, bool kIof>
D2_SSOD_INLINE void compare_row(const Box<T>& box, const BoxPanels<T>& others, int64_t num_others,
                                T* result) {
  using Vector = typename Isa::template Vector<T>;
  constexpr int64_t kLanes = Isa::template kLanes<T>;
  const Box<Vector> row = broadcast_box<Vector>(box);
  const T* panel = others.at(0);
  for (int64_t start = 0; start < num_others; panel += kBoxFields * kPanelColumns<Isa, T>) {
    for (int vector = 0; vector < kPanelVectors && start < num_others; ++vector, start += kLanes) {
      const auto columns = load_boxes<Isa, T>(panel, vector);
      const Vector overlap = kIof ? box_iof(row, columns) : box_iou(row, columns);
      if (start + kLanes <= num_others) {
        store(result + start, overlap);
      } else {
        std::memcpy(result + start, &overlap, (num_others - start) * sizeof(T));
      }
    }
  }
}

template <typename Isa, typename T>
D2_SSOD_INLINE void compare_rows(const PairwiseArguments<T>& arguments, int64_t task, T*) {
  const int64_t begin = task * arguments.rows_per_task;
  const int64_t end = std::min(begin + arguments.rows_per_task, arguments.num_boxes1);
  for (int64_t row = begin; row < end; ++row) {
    const Box<T> box = load_box(arguments.boxes1 + 4 * row);
    T* result = arguments.result + row * arguments.num_boxes2;
    if (arguments.iof) {
      compare_row<Isa, T, true>(box, arguments.boxes2, arguments.num_boxes2, result);
    } else {
      compare_row<Isa, T, false>(box, arguments.boxes2, arguments.num_boxes2, result);
    }
  }
}

D2_SSOD_INSTRUCTION_SETS(compare_rows, PairwiseArguments)

template <typename T>
void run(const at::Tensor& boxes1, const at::Tensor& boxes2, bool iof, const at::Tensor& result) {
  const int64_t rows = boxes1.size(0), columns = boxes2.size(0);
  const BoxPanels<T> panels(boxes2.const_data_ptr<T>(), all_rows({0, columns}));
  const int64_t rows_per_task = std::max<int64_t>(1, kPairsPerTask / columns);
  const PairwiseArguments<T> arguments{
      boxes1.const_data_ptr<T>(),  panels, rows, columns, rows_per_task, iof,
      result.mutable_data_ptr<T>()};
  const auto compare = compare_rows_for_this_cpu<T>();
  parallel_tasks<T>(0, ceil_div(rows, rows_per_task), 0,
                    [&](int64_t task, T* scratch) { compare(arguments, task, scratch); });
}

template <bool kIof>
void pairwise_overlap_cpu(const at::Tensor& boxes1, const at::Tensor& boxes2,
                          const at::Tensor& result) {
  (result.scalar_type() == at::kDouble ? run<double> : run<float>)(boxes1, boxes2, kIof, result);
}

}  // namespace

TORCH_LIBRARY_IMPL(d2_ssod, CPU, m) {
  m.impl("pairwise_iou", pairwise_overlap<pairwise_overlap_cpu<false>>);
  m.impl("pairwise_iof", pairwise_overlap<pairwise_overlap_cpu<true>>);
}

}  // namespace d2_ssod
