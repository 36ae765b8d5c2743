#pragma once

#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <atomic>

namespace d2_ssod {

// Uninitialised memory from torch's allocator: 64-byte aligned, seen by its profiler.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : memory_(c10::GetCPUAllocator()->allocate(size * sizeof(T))) {}
  T* data() const { return static_cast<T*>(memory_.get()); }

 private:
  c10::DataPtr memory_;
};

// Runs run(task, scratch) for task = begin..end-1 on all threads, with scratch of `scratch_size`
// per thread. Threads take the next task when they are free, since tasks differ in size and cores
// in load; a task writes only what is its own, so the results depend neither on the order nor on
// the threads.
template <typename T, typename Run>
void parallel_tasks(int64_t begin, int64_t end, int64_t scratch_size, const Run& run) {
  if (begin >= end) return;
  std::atomic<int64_t> next{begin};
  const int64_t threads = std::min<int64_t>(end - begin, at::get_num_threads());
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    const Scratch<T> scratch(scratch_size);
    for (int64_t task = next++; task < end; task = next++) run(task, scratch.data());
  });
}

}  // namespace d2_ssod
