// What every file of core/ needs. core/ holds the maths of ONE element (a point, a ray), compiled
// for the CPU (once per instruction set) and for CUDA, so that a test on the CPU tests both.
#pragma once

#include <cmath>
#include <cstdint>

// `static`: each instruction set keeps its own copy. With external linkage the linker would merge
// the copies and could hand AVX-512 code to a machine without it.
#ifdef __CUDACC__
#define SDFGAN_METHOD __host__ __device__ __forceinline__
#else
#define SDFGAN_METHOD inline __attribute__((always_inline))
#endif
#define SDFGAN_HD static SDFGAN_METHOD

namespace sdfgan {

template <class T>
SDFGAN_HD T min_of(T a, T b) {
    return b < a ? b : a;
}

template <class T>
SDFGAN_HD T max_of(T a, T b) {
    return a < b ? b : a;
}

}  // namespace sdfgan
