// What the lanes of a warp do together. A warp is cut into groups of kLanes neighbours (8, 16 or
// 32), each with an element of its own; every lane of the warp must come to every call.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace sdfgan::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = ~0u;

// The sum over a group, the same in each of its lanes.
template <int kLanes, class T>
__device__ __forceinline__ T sum_of_lanes(T value) {
#pragma unroll
    for (int apart = kLanes / 2; apart > 0; apart /= 2) {
        value += __shfl_xor_sync(kAllLanes, value, apart);
    }
    return value;
}

template <class T>
__device__ __forceinline__ T max_of_warp(T value) {
#pragma unroll
    for (int apart = kWarp / 2; apart > 0; apart /= 2) {
        const T other = __shfl_xor_sync(kAllLanes, value, apart);
        value = other > value ? other : value;
    }
    return value;
}

// combine(...combine(first lane's, second's)..., own).
template <int kLanes, class T, class Combine>
__device__ __forceinline__ T scan_of_lanes(T value, const Combine& combine) {
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll
    for (int apart = 1; apart < kLanes; apart *= 2) {
        const T before = __shfl_up_sync(kAllLanes, value, apart, kLanes);
        if (lane >= apart) value = combine(before, value);
    }
    return value;
}

// The value of the lane before; `first` in the first lane of a group.
template <int kLanes, class T>
__device__ __forceinline__ T lane_before(T value, T first) {
    const T before = __shfl_up_sync(kAllLanes, value, 1, kLanes);
    return static_cast<int>(threadIdx.x) % kLanes == 0 ? first : before;
}

// The linear function x -> factor x + addend.
template <class T>
struct Linear {
    T factor, addend;
    __device__ __forceinline__ T operator()(T x) const { return factor * x + addend; }
};

template <int kLanes, class T>
__device__ __forceinline__ Linear<T> shift_down(const Linear<T>& f, int apart) {
    return {__shfl_down_sync(kAllLanes, f.factor, apart, kLanes),
            __shfl_down_sync(kAllLanes, f.addend, apart, kLanes)};
}

// x -> own(next lane's(...(last lane's(x)))).
template <int kLanes, class T>
__device__ __forceinline__ Linear<T> compose_from_last_lane(Linear<T> f) {
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll
    for (int apart = 1; apart < kLanes; apart *= 2) {
        const Linear<T> behind = shift_down<kLanes>(f, apart);
        if (lane + apart < kLanes) f = {f.factor * behind.factor, f(behind.addend)};
    }
    return f;
}

// body(ray, lane) for each ray, by kLanes lanes of a warp. The last rays of the last warp are none:
// ray >= rays.
template <int kLanes, class Body>
__device__ __forceinline__ void for_rays(int64_t rays, const Body& body) {
    constexpr int kTogether = kWarp / kLanes;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / kWarp;
    const int64_t warp = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
    for (int64_t first = warp * kTogether; first < rays; first += warps * kTogether) {
        body(first + lane / kLanes, lane % kLanes);
    }
}

// Blocks of `threads` for for_rays.
template <int kLanes>
int64_t blocks_of_rays(int64_t rays, int threads) {
    const int64_t together = threads / kLanes, most = 1 << 20;
    const int64_t blocks = (rays + together - 1) / together;
    return blocks < most ? blocks : most;
}

}  // namespace sdfgan::cuda
