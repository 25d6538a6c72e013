// Products of a network's matrices with the features of eight points and their tangents, by a warp.
//
// These are 16 rows, of which a lane has two: point `group` = lane / 4 and its tangent. Of columns,
// in fours and from a multiple of 8 on, it has `pair` = 2 (lane % 4) and the next: {value, value,
// tangent, tangent}. That is how tensor cores give sums (device.cuh), and, in pairs, how they take
// the first operand, so that what a layer puts out is what the next takes in.
//
// For sums over points, features lie in memory as [W][8] words of a value and its tangent: a tile's
// 16 rows are then what one product of tensor cores sums over, and nothing is transposed.
#pragma once

#include "core/sine.h"
#include "cuda/tile.cuh"
#include "cuda/warp.cuh"

namespace sdfgan::cuda {

constexpr int kTilePoints = 8;
constexpr int kOuterRows = 64, kOuterColumns = 32;  // of a matrix's gradient, by a warp
constexpr int kOuterSums = kOuterRows * kOuterColumns / kWarp;

__device__ __forceinline__ int lane_group() { return static_cast<int>(threadIdx.x) % kWarp / 4; }
__device__ __forceinline__ int lane_pair() { return static_cast<int>(threadIdx.x) % 4 * 2; }

// Of fp16 numbers on tensor cores, with fp32 sums. Matrices, packed as for HalfNetwork, come
// through the cache of the multiprocessor: the warps of a block, at nearly the same place, share
// it. A lane's operand is in its registers, and what it puts out in shared memory until hand_on():
// so outputs are a loop, and the code is short.
template <int W>
class HalfProducts {
  public:
    static constexpr int kWidth = W;
    static constexpr int kWarps = W == 64 ? 8 : 4;    // of a block
    static constexpr int kBlocks = W == 128 ? 3 : 2;  // of a multiprocessor, at least
    static constexpr int kSharedBytes = kWarps * W * 32;
    using Word = uint32_t;

    explicit __device__ HalfProducts(unsigned char* shared)
        : out_(reinterpret_cast<uint4*>(shared + threadIdx.x / kWarp * (W * 32)) +
               threadIdx.x % kWarp) {}

    static __device__ Word word(float value, float tangent) { return pack_halves(value, tangent); }
    static __device__ float sine_of(float x) { return __sinf(x); }
    static __device__ float cosine_of(float x) { return __cosf(x); }

    // Where the word of this lane's point is in a row of eight: a lane's two of add_outer are
    // neighbours.
    static __device__ int place() { return lane_group() % 4 * 2 + lane_group() / 4; }

    // The lane's part of columns n to n + 7 of the operand after the next hand_on().
    __device__ __forceinline__ void put(int n, const float (&values)[4]) {
        uint32_t* const to = reinterpret_cast<uint32_t*>(out_ + n / 16 * kWarp) + n / 8 % 2 * 2;
        to[0] = pack_halves(values[0], values[1]), to[1] = pack_halves(values[2], values[3]);
    }

    __device__ __forceinline__ void hand_on() {
#pragma unroll
        for (int k = 0; k < W / 16; ++k) {
            const uint4 four = out_[k * kWarp];
            in_[k][0] = four.x, in_[k][1] = four.y, in_[k][2] = four.z, in_[k][3] = four.w;
        }
    }

    // use(n, sums) for 32 outputs at a time, sums[i] being the lane's part of n + 8 i and on.
    template <class Use>
    __device__ __forceinline__ void multiply_by(const void* matrices, int64_t number,
                                                const Use& use) const {
        const uint4* weights =
            static_cast<const uint4*>(matrices) + number * (W * W / 8) + threadIdx.x % kWarp;
#pragma unroll 1
        for (int begin = 0; begin < W; begin += 32) {
            float sums[4][4] = {};
#pragma unroll
            for (int k = 0; k < W / 16; ++k) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const uint4 b = read_only(weights + ((begin / 16 + i) * (W / 16) + k) * kWarp);
                    multiply(sums[2 * i], in_[k], b.x, b.y);
                    multiply(sums[2 * i + 1], in_[k], b.z, b.w);
                }
            }
            use(begin, sums);
        }
    }

    // Adds, for one tile, what kOuterRows rows of u and kOuterColumns rows of h give.
    static __device__ __forceinline__ void add_outer(const Word* u, const Word* h,
                                                     float (&sums)[kOuterSums]) {
        const int lane = static_cast<int>(threadIdx.x) % kWarp;
        const uint2* const rows = reinterpret_cast<const uint2*>(u) + lane;
        const uint2* const columns = reinterpret_cast<const uint2*>(h) + lane;
        uint2 b[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) b[j] = columns[j * kWarp];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint2 upper = rows[2 * i * kWarp], lower = rows[(2 * i + 1) * kWarp];
            const uint32_t a[4] = {upper.x, lower.x, upper.y, lower.y};
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                float (&sum)[4] = *reinterpret_cast<float (*)[4]>(sums + 16 * i + 4 * j);
                multiply(sum, a, b[j].x, b[j].y);
            }
        }
    }

    // Where a lane's sum belongs.
    static __device__ int outer_row(int sum, int lane) {
        return sum / 16 * 16 + lane / 4 + sum / 2 % 2 * 8;
    }
    static __device__ int outer_column(int sum, int lane) {
        return sum / 4 % 4 * 8 + lane % 4 * 2 + sum % 2;
    }

  private:
    uint4* const out_;  // of this lane: columns in 16s
    uint32_t in_[W / 16][4];
};

// In fp32 throughout; operands lie in shared memory.
template <int W>
class FullProducts {
  public:
    static constexpr int kWidth = W;
    static constexpr int kWarps = 256 / W;
    static constexpr int kBlocks = 1;
    using Word = float2;

  private:
    static constexpr int kStride = 20;  // of a feature's 16 rows, or stores would meet in one bank
    static constexpr int kValues = W * kStride;

  public:
    static constexpr int kSharedBytes = kWarps * 2 * kValues * static_cast<int>(sizeof(float));

    explicit __device__ FullProducts(unsigned char* shared)
        : in_(reinterpret_cast<float*>(shared) + threadIdx.x / kWarp * (2 * kValues)),
          out_(in_ + kValues) {}

    static __device__ Word word(float value, float tangent) { return {value, tangent}; }
    static __device__ float sine_of(float x) { return sine(x); }
    static __device__ float cosine_of(float x) { return cosine(x); }
    static __device__ int place() { return lane_group(); }

    __device__ __forceinline__ void put(int n, const float (&values)[4]) {
        float* const to = out_ + (n + lane_pair()) * kStride + lane_group();
        to[0] = values[0], to[kStride] = values[1];
        to[8] = values[2], to[kStride + 8] = values[3];
    }

    __device__ void hand_on() {
        __syncwarp();
        float* const in = in_;
        in_ = out_, out_ = in;
    }

    template <class Use>
    __device__ __forceinline__ void multiply_by(const void* matrices, int64_t number,
                                                const Use& use) const {
        const float* const weights =
            static_cast<const float*>(matrices) + number * (W * W) + lane_pair();
        const float* const rows = in_ + lane_group();
#pragma unroll 1
        for (int begin = 0; begin < W; begin += 32) {
            float sums[4][4] = {};
#pragma unroll 4
            for (int k = 0; k < W; ++k) {
                const float value = rows[k * kStride], tangent = rows[k * kStride + 8];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float2 w =
                        read_only(reinterpret_cast<const float2*>(weights + k * W + begin + 8 * i));
                    sums[i][0] += value * w.x, sums[i][1] += value * w.y;
                    sums[i][2] += tangent * w.x, sums[i][3] += tangent * w.y;
                }
            }
            use(begin, sums);
        }
    }

    static __device__ __forceinline__ void add_outer(const Word* u, const Word* h,
                                                     float (&sums)[kOuterSums]) {
        constexpr int kRow = kTilePoints / 2;  // float4, of two points each
        const float4* const rows = reinterpret_cast<const float4*>(u) + lane_group() * kRow;
        const float4* const columns = reinterpret_cast<const float4*>(h) + lane_pair() / 2 * kRow;
#pragma unroll
        for (int two = 0; two < kRow; ++two) {
            float4 b[8];
#pragma unroll
            for (int j = 0; j < 8; ++j) b[j] = columns[4 * j * kRow + two];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float4 a = rows[8 * i * kRow + two];
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    sums[8 * i + j] += a.x * b[j].x + a.y * b[j].y + a.z * b[j].z + a.w * b[j].w;
                }
            }
        }
    }

    static __device__ int outer_row(int sum, int lane) { return sum / 8 * 8 + lane / 4; }
    static __device__ int outer_column(int sum, int lane) { return sum % 8 * 4 + lane % 4; }

  private:
    float *in_, *out_;
};

}  // namespace sdfgan::cuda
