#pragma once

// Vectors of numbers, portable (the compiler's vector extension), and the choice of an instruction
// set at run time: a kernel is a template over an instruction set, compiled once for each under a
// target attribute. A binary built anywhere therefore runs anywhere and uses what it finds there.

#include <ATen/Version.h>

#include <cstdint>
#include <string>

#define D2_SSOD_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define D2_SSOD_TARGET_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")))
#define D2_SSOD_TARGET_AVX2 __attribute__((target("avx2,fma")))
#else
#define D2_SSOD_TARGET_AVX512
#define D2_SSOD_TARGET_AVX2
#endif

namespace d2_ssod {

template <typename T, int W>
struct VectorOf {
  typedef T type __attribute__((vector_size(W * sizeof(T))));
};

// The registers of an instruction set and the tile that fills them: kTileRows x 2 vectors of sums,
// beside two vectors of columns and one of a row.
template <int kBytes, int kRows>
struct InstructionSet {
  static constexpr int kTileRows = kRows;
  template <typename T>
  static constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));
  template <typename T>
  using Vector = typename VectorOf<T, kBytes / static_cast<int>(sizeof(T))>::type;
};
using Baseline = InstructionSet<16, 6>;
using Avx2 = InstructionSet<32, 6>;
using Avx512 = InstructionSet<64, 12>;

enum class Level { kBaseline, kAvx2, kAvx512 };

// What torch found, so that ATEN_CPU_CAPABILITY=avx2 or =default lowers it here as well.
inline Level instruction_level() {
  static const Level level = [] {
    const std::string capability = at::get_cpu_capability();
    if (capability == "AVX512") return Level::kAvx512;
    return capability == "AVX2" ? Level::kAvx2 : Level::kBaseline;
  }();
  return level;
}

// From the always-inlined template name<Isa, T>(const Arguments<T>&, int64_t task, T* scratch)
// makes one function per instruction set, and name_for_this_cpu<T>(), which returns the right one.
#define D2_SSOD_INSTRUCTION_SETS(name, Arguments)                                                 \
  template <typename T>                                                                           \
  D2_SSOD_TARGET_AVX512 void name##_avx512(const Arguments<T>& arguments, int64_t task,           \
                                           T* scratch) {                                          \
    name<Avx512, T>(arguments, task, scratch);                                                    \
  }                                                                                               \
  template <typename T>                                                                           \
  D2_SSOD_TARGET_AVX2 void name##_avx2(const Arguments<T>& arguments, int64_t task, T* scratch) { \
    name<Avx2, T>(arguments, task, scratch);                                                      \
  }                                                                                               \
  template <typename T>                                                                           \
  void name##_baseline(const Arguments<T>& arguments, int64_t task, T* scratch) {                 \
    name<Baseline, T>(arguments, task, scratch);                                                  \
  }                                                                                               \
  template <typename T>                                                                           \
  auto name##_for_this_cpu() {                                                                    \
    switch (instruction_level()) {                                                                \
      case Level::kAvx512:                                                                        \
        return &name##_avx512<T>;                                                                 \
      case Level::kAvx2:                                                                          \
        return &name##_avx2<T>;                                                                   \
      default:                                                                                    \
        return &name##_baseline<T>;                                                               \
    }                                                                                             \
  }

template <typename Vector, typename T>
D2_SSOD_INLINE Vector load(const T* source) {
  Vector vector;
  __builtin_memcpy(&vector, source, sizeof(vector));
  return vector;
}

template <typename Vector, typename T>
D2_SSOD_INLINE void store(T* destination, const Vector& vector) {
  __builtin_memcpy(destination, &vector, sizeof(vector));
}

template <typename Vector, typename T>
D2_SSOD_INLINE Vector broadcast(T x) {
  return Vector{} + x;
}

template <typename T, typename Vector>
D2_SSOD_INLINE T sum_of_lanes(const Vector& vector) {
  T total = 0;
  for (size_t lane = 0; lane < sizeof(Vector) / sizeof(T); ++lane) total += vector[lane];
  return total;
}

// 0 if there is nothing larger.
template <typename T, typename Vector>
D2_SSOD_INLINE T largest_lane(const Vector& vector) {
  T largest = 0;
  for (size_t lane = 0; lane < sizeof(Vector) / sizeof(T); ++lane) {
    largest = vector[lane] > largest ? vector[lane] : largest;
  }
  return largest;
}

}  // namespace d2_ssod
