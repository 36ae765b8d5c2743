#pragma once

// Starting kernels, and their shared memory. The files of this folder that end in .cuh include
// nothing of torch and get all that is CUDA's own from here and from primitives.cuh, so that
// tests/cuda_emulation can compile them with g++ and run them on the CPU (which checks their logic,
// not the hardware's behaviour).

#include <cstddef>
#include <cstdint>

#ifdef D2_SSOD_EMULATE_CUDA
#include "emulation.h"
#else
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime.h>
#endif

namespace d2_ssod {

constexpr int kWarpSize = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

template <typename T>
__host__ __device__ constexpr T ceil_div(T numerator, T denominator) {
  return (numerator + denominator - 1) / denominator;
}

#ifdef D2_SSOD_EMULATE_CUDA
using emulation::launch;
using emulation::shared_storage;
#else
// Launches on `stream` without waiting for it; `shared_bytes` may exceed the 48 KB that need no
// asking.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
            cudaStream_t stream, const Arguments&... arguments) {
  if (shared_bytes > 48 * 1024) {
    C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  C10_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// The block's dynamic shared memory as one struct.
template <typename Storage>
__device__ __forceinline__ Storage& shared_storage() {
  extern __shared__ __align__(16) unsigned char d2_ssod_shared_storage[];
  return *reinterpret_cast<Storage*>(d2_ssod_shared_storage);
}
#endif

}  // namespace d2_ssod
