// What one lane of a HalfNetwork's warp does with its share of a layer's outputs: eight at a time,
// of rows `group` and `group + 8` of a tile of 16.
#pragma once

#include <cstdint>

#include "cuda/device.cuh"

namespace sdfgan::cuda {

// A lane's sums of the eight features from the warp's n-th on, as operands of multiply().
template <int kOuts>
__device__ __forceinline__ void put(uint32_t (&out)[kOuts][4], int n, const float (&sum)[4]) {
    out[n / 16][n / 8 % 2 * 2] = pack_halves(sum[0], sum[1]);
    out[n / 16][n / 8 % 2 * 2 + 1] = pack_halves(sum[2], sum[3]);
}

struct Factors {  // of two rows: scale, scale, shift, shift of outputs n and n + 1
    float4 row[2];
};

__device__ __forceinline__ Factors load_factors(const float4* const* factors, int n) {
    return {{factors[0][n / 2], factors[1][n / 2]}};
}

// The sines of a lane's sums: rows group (sum[0], sum[1]) and group + 8, of outputs n and n+1.
template <bool kTangents>
__device__ __forceinline__ void activate(float (&sum)[4], const Factors& of) {
    float phase[4];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        phase[2 * r] = std::fmaf(sum[2 * r], of.row[r].x, of.row[r].z);
        phase[2 * r + 1] = std::fmaf(sum[2 * r + 1], of.row[r].y, of.row[r].w);
    }
    if constexpr (!kTangents) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] = __sinf(phase[i]);
    } else {  // both rows are of one point, and its phase is that of the even group's first row
        const int value_lane = threadIdx.x % 32 & ~4;
        const bool has_value = (threadIdx.x & 4) == 0;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float of_value = __shfl_sync(~0u, phase[i], value_lane);
            const float slope = __cosf(of_value) * (i ? of.row[0].y : of.row[0].x);
            sum[i] = has_value ? __sinf(of_value) : slope * sum[i];
            sum[2 + i] *= slope;
        }
    }
}

}  // namespace sdfgan::cuda
