// FiLM-SIRENs with products of fp16 numbers on tensor cores, all else in fp32; sm_80 and later.
#pragma once

#include "cuda/tile.cuh"

namespace sdfgan::cuda {

// A warp keeps its rows in registers: what a layer puts out has the layout of what the next takes
// in (see multiply()). The matrices, packed by sdfgan.ops.pack_matrices so that each lane finds its
// 16 bytes together, lie in shared memory, all of them if they fit; else they pass through it in a
// ring, in the steps of the block.
template <int W, bool kTangents, int kHeads>
class HalfNetwork {
  public:
    static constexpr int kTiles = W <= 128 && !kTangents ? 2 : 1;  // of 16 rows, of a warp
    static constexpr int kWarpRows = 16 * kTiles;
    static constexpr int kBlocks = 1;  // of a multiprocessor, at least: 2 would spill registers
    using Tile = cuda::Tile<kWarps * kWarpRows, kTangents, kHeads>;

    // Bytes of shared memory that it takes, if it may have no more than `most`.
    static int memory(const Path& path, int most) {
        const int all = chunks(path) * kChunkBytes;
        return kMayStay && all <= most ? all : kRing * kChunkBytes;
    }

    // `bytes` are at `ring`, aligned to 16.
    __device__ HalfNetwork(const FilmSiren<float>& network, const Path& path, unsigned char* ring,
                           int bytes)
        : network_(network),
          path_(path),
          ring_(ring),
          resident_(kMayStay && bytes == chunks(path) * kChunkBytes) {
        // A ring has all its chunks or, for a path without matrices, none.
        const int ahead = resident_ ? chunks(path) : min_of(chunks(path), kRing - 1);
        for (int i = 0; i < ahead; ++i) fetch(i, i);
        if (resident_) {
            wait_for_copies<0>();
            __syncthreads();
        }
    }

    __device__ ~HalfNetwork() { wait_for_copies<0>(); }

    static constexpr int kWarpPoints = Tile::kPoints / kWarps;

    // The point of a tile that this thread looks after, or -1.
    static __device__ int own_point() {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        return lane < kWarpPoints ? warp * kWarpPoints + lane : -1;
    }

    // Whether anyone of those who go on together has work. What they wrote before is seen after.
    __device__ bool any(bool work) const {
        __syncwarp();
        const bool warp = __any_sync(~0u, work);
        return resident_ ? warp : __syncthreads_or(work);
    }

    // Of warps without rows to evaluate, only the copies are needed.
    __device__ void evaluate(Tile& tile, bool work) {
        if (!__any_sync(~0u, work)) {
            if (!resident_) {
                for (int i = 0; i < chunks(path_); ++i) chunk(i);
            }
            return;
        }
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int group = lane / 4, pair = lane % 4 * 2;
        constexpr int kLaneRows = 2 * kTiles;
        float x[kLaneRows][3];
        uint32_t film[kLaneRows];
        // With derivatives, even groups hold the value and d/dx, odd ones d/dy and d/dz.
        const auto kind = [&](int r) { return kTangents ? group % 2 * 2 + r : 0; };
        const auto point = [&](int r) {
            return kTangents ? warp * 4 + group / 2 : warp * kWarpRows + group + 8 * r;
        };
#pragma unroll
        for (int r = 0; r < kLaneRows; ++r) {
            for (int axis = 0; axis < 3; ++axis) {
                x[r][axis] = row_input(tile, point(r), kind(r), axis);
            }
            film[r] = tile.film[point(r)];
        }

        uint32_t in[kTiles][W / 16][4], out[kTiles][W / 16][4];
        float product[kHeads][kLaneRows] = {};
        const int length = path_.length();
#pragma unroll
        for (int n = 0; n < W; n += 8) {
            if (n % 32 == 0) __syncwarp();  // or all loads come first, and registers spill
            float sum[kTiles][4];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float* w = network_.first + 3 * (n + pair + i);
#pragma unroll
                for (int r = 0; r < kLaneRows; ++r) {
                    sum[r / 2][r % 2 * 2 + i] = w[0] * x[r][0] + w[1] * x[r][1] + w[2] * x[r][2];
                }
            }
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                activate(sum[t], film + 2 * t, path_.layer(0), n + pair);
                if (length == 1) apply_heads(sum[t], n + pair, t, product);
                in[t][n / 16][n / 8 % 2 * 2] = pack_halves(sum[t][0], sum[t][1]);
                in[t][n / 16][n / 8 % 2 * 2 + 1] = pack_halves(sum[t][2], sum[t][3]);
            }
        }
        for (int step = 1; step < length; ++step) {
            const bool last = step + 1 == length;
            const int layer = path_.layer(step);
#pragma unroll
            for (int begin = 0; begin < W; begin += kChunk) {
                const uint4* weights = chunk((step - 1) * (W / kChunk) + begin / kChunk) + lane;
                float sum[kChunk / 8][kTiles][4] = {};
#pragma unroll
                for (int k = 0; k < W / 16; ++k) {
#pragma unroll
                    for (int n = 0; n < kChunk / 16; ++n) {
                        const uint4 b = weights[(n * (W / 16) + k) * 32];
#pragma unroll
                        for (int t = 0; t < kTiles; ++t) {
                            multiply(sum[2 * n][t], in[t][k], b.x, b.y);
                            multiply(sum[2 * n + 1][t], in[t][k], b.z, b.w);
                        }
                    }
                }
#pragma unroll
                for (int i = 0; i < kChunk / 8; ++i) {
                    const int n = begin + 8 * i;
#pragma unroll
                    for (int t = 0; t < kTiles; ++t) {
                        activate(sum[i][t], film + 2 * t, layer, n + pair);
                        if (last) apply_heads(sum[i][t], n + pair, t, product);
                        out[t][n / 16][n / 8 % 2 * 2] = pack_halves(sum[i][t][0], sum[i][t][1]);
                        out[t][n / 16][n / 8 % 2 * 2 + 1] = pack_halves(sum[i][t][2], sum[i][t][3]);
                    }
                }
            }
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
#pragma unroll
                for (int k = 0; k < W / 16; ++k) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) in[t][k][i] = out[t][k][i];
                }
            }
        }
#pragma unroll
        for (int head = 0; head < kHeads; ++head) {
#pragma unroll
            for (int r = 0; r < kLaneRows; ++r) {
                float sum = product[head][r];
                sum += __shfl_xor_sync(~0u, sum, 1);
                sum += __shfl_xor_sync(~0u, sum, 2);
                if (pair == 0) tile.value[head][Tile::kOfPoint * point(r) + kind(r)] = sum;
            }
        }
        __syncwarp();
    }

  private:
    static constexpr int kChunk = 32;  // outputs of which the weights come together
    static constexpr int kChunkBytes = kChunk * W * 2;
    static constexpr int kRing = 4;  // chunks, where not all fit
    static constexpr bool kMayStay = W < 256;

    static __host__ __device__ int chunks(const Path& path) {
        return (path.length() - 1) * (W / kChunk);
    }

    // The sines of a lane's sums: rows group (sum[0], sum[1]) and group + 8, of outputs n and n+1.
    __device__ __forceinline__ void activate(float (&sum)[4], const uint32_t* film, int layer,
                                             int n) const {
        float4 factors[2];  // scale, scale, shift, shift
        float phase[4];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const uint32_t pair = (film[r] + layer * W + n) / 2;
            factors[r] = reinterpret_cast<const float4*>(network_.film)[pair];
            phase[2 * r] = sum[2 * r] * factors[r].x + factors[r].z;
            phase[2 * r + 1] = sum[2 * r + 1] * factors[r].y + factors[r].w;
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
                const float slope = __cosf(of_value) * (i ? factors[0].y : factors[0].x);
                sum[i] = has_value ? __sinf(of_value) : slope * sum[i];
                sum[2 + i] *= slope;
            }
        }
    }

    __device__ __forceinline__ void apply_heads(const float (&feature)[4], int n, int tile,
                                                float (&product)[kHeads][2 * kTiles]) const {
        const float* const head = kHeads == 1 ? network_.sdf_head : network_.texture_head;
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
            const float2 w = *reinterpret_cast<const float2*>(head + h * W + n);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                product[h][2 * tile + r] += feature[2 * r] * w.x + feature[2 * r + 1] * w.y;
            }
        }
    }

    // Starts to copy the chunk `index` of the path's to a place in shared memory.
    __device__ void fetch(int index, int place) {
        const int step = 1 + index / (W / kChunk), part = index % (W / kChunk);
        const auto* matrices = static_cast<const unsigned char*>(network_.hidden);
        const int64_t number = int64_t{path_.layer(step) - 1} * (W / kChunk) + part;
        const unsigned char* from = matrices + number * kChunkBytes;
        unsigned char* to = ring_ + place * kChunkBytes;
        for (int i = 16 * threadIdx.x; i < kChunkBytes; i += 16 * kNetworkThreads) {
            copy_16_bytes(to + i, from + i);
        }
        commit_copies();
    }

    // The chunk `index`, which must be asked for in turn.
    __device__ const uint4* chunk(int index) {
        int place = index;
        if (!resident_) {
            wait_for_copies<kRing - 2>();
            __syncthreads();  // the chunk is there, and all are done with the one before
            const int ahead = index + kRing - 1;
            fetch(ahead % chunks(path_), (turn_ + kRing - 1) % kRing);
            place = turn_;
            turn_ = (turn_ + 1) % kRing;
        }
        return reinterpret_cast<const uint4*>(ring_ + place * kChunkBytes);
    }

    const FilmSiren<float>& network_;
    const Path path_;
    unsigned char* const ring_;
    const bool resident_;
    int turn_ = 0;  // place of the next chunk in the ring
};

}  // namespace sdfgan::cuda
