// What only nvcc understands: launches, shared memory, asynchronous copies, tensor cores. The tests
// replace this file, to run the kernels on a CPU (tests/native/emulated).
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sdfgan::cuda {

// Needed before a launch with more than 48 KB.
template <class... Parameters>
cudaError_t allow_shared_memory(void (*kernel)(Parameters...), int bytes) {
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

template <class... Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters...), int64_t blocks, int threads,
                          int shared_bytes, void* stream, const Parameters&... parameters) {
    kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes,
             static_cast<cudaStream_t>(stream)>>>(parameters...);
    return cudaGetLastError();
}

// The shared memory that the launch asked for, aligned to 16 bytes.
__device__ __forceinline__ unsigned char* shared_memory() {
    extern __shared__ __align__(16) unsigned char bytes[];
    return bytes;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
// The launchers refuse what needs these.
__device__ __forceinline__ void copy_16_bytes(void*, const void*) { __trap(); }
__device__ __forceinline__ void commit_copies() { __trap(); }
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
    __trap();
}
__device__ __forceinline__ void multiply(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) {
    __trap();
}
#else

// Starts to copy 16 bytes, aligned, into shared memory.
__device__ __forceinline__ void copy_16_bytes(void* shared, const void* global) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global)
                 : "memory");
}

// Ends a group of this thread's copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }

// Until all but the last kPending groups are there.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// sum [16, 8] += a [16, 16] b [16, 8] by a warp, of fp16 numbers. With group = lane / 4 and
// pair = 2 (lane % 4), a lane holds two numbers in each register:
//   sum: rows group, group + 8 at columns pair, pair + 1;
//   a: rows group, group + 8 at columns pair + 0, 1, then the same at columns pair + 8, 9;
//   b: rows pair + 0, 1, then pair + 8, 9, of column group.
__device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// What no kernel writes while this one runs: may be read ahead of what is written in between.
template <class T>
__device__ __forceinline__ T read_only(const T* source) {
    return __ldg(source);
}

// Adds numbers to neighbours in global memory that are aligned together; as one where the hardware
// can.
__device__ __forceinline__ void add_2(float* target, float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float2*>(target), make_float2(a, b));
#else
    atomicAdd(target, a);
    atomicAdd(target + 1, b);
#endif
}

__device__ __forceinline__ void add_4(float* target, float a, float b, float c, float d) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(target), make_float4(a, b, c, d));
#else
    add_2(target, a, b);
    add_2(target + 2, c, d);
#endif
}

__device__ __forceinline__ uint32_t pack_halves(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

}  // namespace sdfgan::cuda
