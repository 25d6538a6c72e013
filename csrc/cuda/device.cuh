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
__device__ __forceinline__ void start_barrier(uint64_t*, int) { __trap(); }
__device__ __forceinline__ void arrive(uint64_t*) { __trap(); }
__device__ __forceinline__ void wait(uint64_t*, unsigned) { __trap(); }
__device__ __forceinline__ void publish_barriers() { __trap(); }
constexpr int kCopyArrivals = 1;
template <int kBytes>
__device__ __forceinline__ void copy_by_warp(void*, const void*, uint64_t*) {
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

// Barriers in shared memory, on which some threads wait for what others have done, and go on. Each
// round of one takes the same number of arrivals; rounds have parity 0, 1, 0, ...
__device__ __forceinline__ uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

__device__ __forceinline__ void start_barrier(uint64_t* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
                 : "memory");
}

// What this thread did before is seen by those who wait.
__device__ __forceinline__ void arrive(uint64_t* barrier) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(
                     shared_address(barrier))
                 : "memory");
}

// Until the last round of this parity is over: returns at once if the round under way has the other
// parity, and so for parity 1 if no round has ended yet.
__device__ __forceinline__ void wait(uint64_t* barrier, unsigned parity) {
    const uint32_t address = shared_address(barrier);
    uint32_t over;
    do {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define SDFGAN_TEST "try_wait"  // which sleeps meanwhile
#else
#define SDFGAN_TEST "test_wait"
#endif
        asm volatile("{ .reg .pred over; mbarrier." SDFGAN_TEST
                     ".parity.shared.b64 over, [%1], %2; selp.u32 %0, 1, 0, over; }"
                     : "=r"(over)
                     : "r"(address), "r"(parity)
                     : "memory");
#undef SDFGAN_TEST
    } while (!over);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// Between start_barrier() and a __syncthreads(): for copies too the barriers have been started.
__device__ __forceinline__ void publish_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrivals of a copy_by_warp().
constexpr int kCopyArrivals = 1;

// Starts to copy into shared memory, both aligned to 16 bytes; arrives when all is there. By all
// lanes of a warp.
template <int kBytes>
__device__ __forceinline__ void copy_by_warp(void* shared, const void* global, uint64_t* barrier) {
    if (threadIdx.x % 32 != 0) return;
    const uint32_t address = shared_address(barrier);
    asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(
                     address),
                 "n"(kBytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(shared_address(shared)),
        "l"(global), "n"(kBytes), "r"(address)
        : "memory");
}
#else
__device__ __forceinline__ void publish_barriers() {}

constexpr int kCopyArrivals = 32;

template <int kBytes>
__device__ __forceinline__ void copy_by_warp(void* shared, const void* global, uint64_t* barrier) {
    for (int i = threadIdx.x % 32 * 16; i < kBytes; i += 512) {
        copy_16_bytes(static_cast<unsigned char*>(shared) + i,
                      static_cast<const unsigned char*>(global) + i);
    }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}
#endif

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
