#pragma once

// The formulas in this folder are compiled by g++ and by nvcc alike and include nothing of torch.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define D2_SSOD_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define D2_SSOD_HOST_DEVICE inline __attribute__((always_inline))
#endif
