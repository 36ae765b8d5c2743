#pragma once

// The instructions that C++ has no words for: copies into shared memory that run on their own,
// tensor-core products of half matrices, minima that keep NaN. All exist from sm_80 on.

#include "core/box.h"
#include "cuda/common/launch.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "the CUDA operators need compute capability 8.0 or more: FORCE_CUDA=0 builds without them"
#endif

#ifndef D2_SSOD_EMULATE_CUDA
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace d2_ssod {

#ifdef D2_SSOD_EMULATE_CUDA
using emulation::copy_async_16;
using emulation::copy_async_commit;
using emulation::copy_async_wait;
using emulation::load_matrices;
using emulation::load_matrices_transposed;
using emulation::multiply_add;
#else

// Two instructions as C++ has it, one as the hardware does; NaN of either argument comes out, which
// is what the overlaps need (core/box.h).
template <>
D2_SSOD_HOST_DEVICE float lower(float a, float b) {
#ifdef __CUDA_ARCH__
  float result;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return a < b ? a : b;
#endif
}

template <>
D2_SSOD_HOST_DEVICE float upper(float a, float b) {
#ifdef __CUDA_ARCH__
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return a > b ? a : b;
#endif
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Starts copying 16 bytes from global to shared memory, past the L1 cache.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}

// The same; writes zeros if not `valid`.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}

// Ends this thread's group of copies.
__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `kPending` of this thread's latest groups are still on their way.
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of halves; lanes 8m..8m+7 point at the rows of matrix m. Lane l gets elements
// 2(l%4) and 2(l%4)+1 of row l/4 of each.
__device__ __forceinline__ void load_matrices(uint32_t (&registers)[4], const __half* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same of the transposed matrices.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&registers)[4],
                                                         const __half* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

// c[16, 8] += a[16, 16] b[16, 8]: halves in, float32 sums. With g = lane / 4 and t = lane % 4, c
// holds (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, "
      "%9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// kCount neighbouring numbers, loaded or stored at once.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  T values[kCount];
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2)
    x += __shfl_xor_sync(kFullWarp, x, offset);
  return x;
}

// Largest of `kLanes` neighbouring lanes, all of which get it; no lane may hold NaN.
template <int kLanes, typename T>
__device__ __forceinline__ T lanes_max(T x) {
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
    x = upper(x, __shfl_xor_sync(kFullWarp, x, offset));
  return x;
}

// Keeps the larger of a stored number and x. Neither may be negative or NaN: such floats order as
// integers.
__device__ __forceinline__ void atomic_max(float* stored, float x) {
  atomicMax(reinterpret_cast<int*>(stored), __float_as_int(x));
}

}  // namespace d2_ssod
