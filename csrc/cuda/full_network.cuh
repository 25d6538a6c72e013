// FiLM-SIRENs in fp32 throughout.
#pragma once

#include "core/sine.h"
#include "cuda/tile.cuh"

namespace sdfgan::cuda {

// A thread has four rows (one point, with derivatives) and eight outputs, as in any fp32 matrix
// product; features lie in shared memory, and weights pass through it.
template <int W, bool kTangents, int kHeads>
class FullNetwork {
  public:
    static constexpr int kRows = 8192 / W;
    static constexpr int kBlocks = 2;
    using Tile = cuda::Tile<kRows, kTangents, kHeads>;

    static int memory(const Path&, int) { return (kStride + 2 * kDepth) * W * 4; }

    __device__ FullNetwork(const FilmSiren<float>& network, const Path& path, unsigned char* memory,
                           int)
        : network_(network),
          path_(path),
          features_(reinterpret_cast<float*>(memory)),
          weights_(features_ + W * kStride) {}

    static constexpr int kWarpPoints = Tile::kPoints < 32 ? Tile::kPoints : 32;

    static __device__ int own_point() {
        return threadIdx.x < Tile::kPoints ? static_cast<int>(threadIdx.x) : -1;
    }

    // As HalfNetwork's; all rows are evaluated, whatever they hold.
    __device__ int place(bool has, bool, int) const { return has ? own_point() : -1; }

    __device__ bool any(bool work) const { return __syncthreads_or(work); }

    __device__ int evaluate(Tile& tile, bool) {
        constexpr int kAcross = W / 8;  // threads that share rows
        const int row = threadIdx.x / kAcross * 4, across = threadIdx.x % kAcross;
        const int length = path_.length();
        uint32_t film[4];
        float sum[4][8];
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const int point = kTangents ? row / 4 : row + r;
            film[r] = tile.film[point];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float* w = network_.first + 3 * output(across, i);
                sum[r][i] = 0;
#pragma unroll
                for (int axis = 0; axis < 3; ++axis) {
                    sum[r][i] += w[axis] * row_input(tile, point, kTangents ? r : 0, axis);
                }
            }
        }
        activate(sum, film, path_.layer(0), across);
        for (int step = 1; step < length; ++step) {
            const int layer = path_.layer(step);
            const float* matrix =
                static_cast<const float*>(network_.hidden) + int64_t{layer - 1} * W * W;
            store_features(sum, row, across);
            multiply_matrix(sum, matrix, row, across);
            activate(sum, film, layer, across);
        }
        const float* const head = kHeads == 1 ? network_.sdf_head : network_.texture_head;
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                float product = 0;
#pragma unroll
                for (int i = 0; i < 8; ++i) product += head[h * W + output(across, i)] * sum[r][i];
#pragma unroll
                for (int lanes = 1; lanes < kAcross; lanes *= 2) {
                    product += __shfl_xor_sync(~0u, product, lanes);
                }
                if (across == 0) tile.value[h][row + r] = product;
            }
        }
        __syncthreads();
        return kWarpPoints;
    }

  private:
    static constexpr int kDepth = 8;  // inputs of which the weights come together
    static constexpr int kStride =
        kRows + 4;  // of a feature's rows: or stores would meet in one bank

    // Four and four, so that the lanes of a warp read shared memory without conflicts.
    static __device__ int output(int across, int i) { return i / 4 * (W / 2) + 4 * across + i % 4; }

    __device__ void activate(float (&sum)[4][8], const uint32_t (&film)[4], int layer,
                             int across) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int at = layer * W + output(across, 4 * half);
            float scale[4], shift[4];
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                if (r == 0 || !kTangents) {
                    load4(scale, network_.scale + film[r] + at);
                    load4(shift, network_.shift + film[r] + at);
                }
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float& s = sum[r][4 * half + i];
                    if (r == 0 || !kTangents) {
                        const float phase = s * scale[i] + shift[i];
                        s = sine(phase);
                        if (kTangents) scale[i] *= cosine(phase);
                    } else {
                        s *= scale[i];
                    }
                }
            }
        }
    }

    static __device__ __forceinline__ void load4(float (&to)[4], const float* from) {
        const float4 v = *reinterpret_cast<const float4*>(from);
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }

    __device__ void store_features(const float (&sum)[4][8], int row, int across) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            *reinterpret_cast<float4*>(features_ + output(across, i) * kStride + row) =
                make_float4(sum[0][i], sum[1][i], sum[2][i], sum[3][i]);
        }
    }

    // sum = matrix features, where matrix [inputs, outputs]. Begins and ends in step.
    __device__ void multiply_matrix(float (&sum)[4][8], const float* matrix, int row, int across) {
        constexpr int kLoads = kDepth * W / 4 / kNetworkThreads > 0
                                   ? kDepth * W / 4 / kNetworkThreads
                                   : 1;  // of float4, for each thread that loads
        const bool loads = threadIdx.x < kDepth * W / 4;
        const float4* from = reinterpret_cast<const float4*>(matrix) + threadIdx.x;
        float4* to = reinterpret_cast<float4*>(weights_) + threadIdx.x;
        float4 coming[kLoads];
        if (loads) {
#pragma unroll
            for (int i = 0; i < kLoads; ++i) to[i * kNetworkThreads] = from[i * kNetworkThreads];
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
            for (int i = 0; i < 8; ++i) sum[r][i] = 0;
        }
        for (int begin = 0; begin < W; begin += kDepth) {
            const bool more = begin + kDepth < W;
            if (loads && more) {
#pragma unroll
                for (int i = 0; i < kLoads; ++i) {
                    coming[i] = from[(begin + kDepth) * (W / 4) + i * kNetworkThreads];
                }
            }
            const float* weights = weights_ + begin / kDepth % 2 * (kDepth * W);
#pragma unroll 2  // more would spill registers
            for (int k = 0; k < kDepth; ++k) {
                const float4 x =
                    *reinterpret_cast<const float4*>(features_ + (begin + k) * kStride + row);
                const float4 w0 =
                    *reinterpret_cast<const float4*>(weights + k * W + output(across, 0));
                const float4 w1 =
                    *reinterpret_cast<const float4*>(weights + k * W + output(across, 4));
                const float rows[4] = {x.x, x.y, x.z, x.w};
                const float outputs[8] = {w0.x, w0.y, w0.z, w0.w, w1.x, w1.y, w1.z, w1.w};
#pragma unroll
                for (int r = 0; r < 4; ++r) {
#pragma unroll
                    for (int i = 0; i < 8; ++i) sum[r][i] += rows[r] * outputs[i];
                }
            }
            if (loads && more) {
                float4* next = to + (begin / kDepth + 1) % 2 * (kDepth * W / 4);
#pragma unroll
                for (int i = 0; i < kLoads; ++i) next[i * kNetworkThreads] = coming[i];
            }
            __syncthreads();
        }
    }

    const FilmSiren<float>& network_;
    const Path path_;
    float* const features_;
    float* const weights_;
};

}  // namespace sdfgan::cuda
