// FiLM-SIRENs with products of fp16 numbers on tensor cores, all else in fp32; sm_80 and later.
#pragma once

#include "cuda/tile.cuh"

namespace sdfgan::cuda {

// A warp keeps its rows in registers: what a layer puts out has the layout of what the next takes
// in (see multiply()). The matrices, packed by sdfgan.ops.pack_matrices so that each lane finds its
// 16 bytes together, lie in shared memory, all of them if they fit; else they pass through it in a
// ring, in the steps of the block.
//
// kTeam warps share their rows. Where there are two, each makes half of the outputs of every layer,
// which takes less time where there are few rows, and they exchange features in shared memory.
template <int W, bool kTangents, int kHeads, int kTeam = 1>
class HalfNetwork {
  public:
    static_assert(kTeam == 1 || (W == 256 && !kTangents), "teams exchange in the steps of a ring");
    static constexpr int kTiles = W <= 128 && !kTangents ? 2 : 1;  // of 16 rows, of a team
    static constexpr int kTeamRows = 16 * kTiles;
    static constexpr int kBlocks = 1;  // of a multiprocessor, at least: 2 would spill registers
    using Tile = cuda::Tile<kWarps / kTeam * kTeamRows, kTangents, kHeads>;

    // Bytes of shared memory that it takes, if it may have no more than `most`.
    static int memory(const Path& path, int most) {
        const int all = chunks(path) * kChunkBytes;
        return kMayStay && all <= most ? all : kRing * kChunkBytes + kExchangeBytes;
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
        if constexpr (kTeam > 1) {
            if (threadIdx.x % 32 == 0) exchange().works[threadIdx.x / 32] = warp;
        }
        return resident_ ? warp : __syncthreads_or(work);
    }

    // After any(). Of warps without rows to evaluate, only the copies are needed.
    __device__ void evaluate(Tile& tile, bool work) {
        const int lane = threadIdx.x % 32, team = threadIdx.x / 32 / kTeam;
        const int part = threadIdx.x / 32 % kTeam;  // of each chunk's outputs
        work = __any_sync(~0u, work);
        if constexpr (kTeam > 1) work |= exchange().works[kTeam * team + (part ^ 1)];
        if (!work) {
            if (!resident_) {
                for (int i = 0; i < chunks(path_); ++i) chunk(i);
            }
            if constexpr (kTeam > 1) __syncthreads();  // as below
            return;
        }
        const int group = lane / 4, pair = lane % 4 * 2;
        const int offset = part * kPart + pair;  // of the lane's outputs; what is added is constant
        constexpr int kLaneRows = 2 * kTiles;
        float x[kLaneRows][3];
        uint32_t film[kLaneRows];          // of float4, from this lane's first output on
        const float4* factors[kLaneRows];  // of a layer
        // With derivatives, even groups hold the value and d/dx, odd ones d/dy and d/dz.
        const auto kind = [&](int r) { return kTangents ? group % 2 * 2 + r : 0; };
        const auto point = [&](int r) {
            return kTangents ? team * 4 + group / 2 : team * kTeamRows + group + 8 * r;
        };
#pragma unroll
        for (int r = 0; r < kLaneRows; ++r) {
            for (int axis = 0; axis < 3; ++axis) {
                x[r][axis] = row_input(tile, point(r), kind(r), axis);
            }
            film[r] = (tile.film[point(r)] + offset) / 2;
            factors[r] = factors_of(film[r], path_.layer(0));
        }

        uint32_t in[kTiles][W / 16][4], out[kTiles][W / 16 / kTeam][4];
        float product[kHeads][kLaneRows] = {};
        const int length = path_.length();
        constexpr bool kMayEnd = kHeads > 1;  // with the first layer: an sdf has a layer of its own
        const float2* const first_weights =
            reinterpret_cast<const float2*>(network_.first + 3 * offset);
#pragma unroll
        for (int first = 0; first < W / kTeam; first += 8) {
            if (first % 32 == 0) __syncwarp();  // or all loads come first, and registers spill
            const int n = feature(first);
            float sum[kTiles][4];
            float2 pairs[3];
#pragma unroll
            for (int i = 0; i < 3; ++i) pairs[i] = first_weights[3 * n / 2 + i];
            const float w[6] = {pairs[0].x, pairs[0].y, pairs[1].x,
                                pairs[1].y, pairs[2].x, pairs[2].y};
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
                for (int r = 0; r < kLaneRows; ++r) {
                    sum[r / 2][r % 2 * 2 + i] =
                        w[3 * i] * x[r][0] + w[3 * i + 1] * x[r][1] + w[3 * i + 2] * x[r][2];
                }
            }
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                activate(sum[t], factors + 2 * t, n);
                if (kMayEnd && length == 1) apply_heads(sum[t], offset, n, t, product);
                put(out[t], first, sum[t]);
            }
        }
        hand_on(in, out);
        for (int step = 1; step < length; ++step) {
            const bool last = step + 1 == length;
#pragma unroll
            for (int r = 0; r < kLaneRows; ++r) factors[r] = factors_of(film[r], path_.layer(step));
#pragma unroll
            for (int begin = 0; begin < W; begin += kChunk) {
                const uint4* weights = chunk((step - 1) * (W / kChunk) + begin / kChunk) +
                                       part * (kPart / 16) * (W / 16) * 32 + lane;
                if (begin == 0) receive(in);
                float sum[kPart / 8][kTiles][4] = {};
#pragma unroll
                for (int k = 0; k < W / 16; ++k) {
#pragma unroll
                    for (int n = 0; n < kPart / 16; ++n) {
                        const uint4 b = weights[(n * (W / 16) + k) * 32];
#pragma unroll
                        for (int t = 0; t < kTiles; ++t) {
                            multiply(sum[2 * n][t], in[t][k], b.x, b.y);
                            multiply(sum[2 * n + 1][t], in[t][k], b.z, b.w);
                        }
                    }
                }
#pragma unroll
                for (int i = 0; i < kPart / 8; ++i) {
                    const int n = begin + 8 * i;
#pragma unroll
                    for (int t = 0; t < kTiles; ++t) {
                        activate(sum[i][t], factors + 2 * t, n);
                        if (last) apply_heads(sum[i][t], offset, n, t, product);
                        put(out[t], begin / kTeam + 8 * i, sum[i][t]);
                    }
                }
            }
            hand_on(in, out);
        }
#pragma unroll
        for (int head = 0; head < kHeads; ++head) {
#pragma unroll
            for (int r = 0; r < kLaneRows; ++r) {
                float sum = product[head][r];
                sum += __shfl_xor_sync(~0u, sum, 1);
                sum += __shfl_xor_sync(~0u, sum, 2);
                if (pair != 0) continue;
                if constexpr (kTeam == 1) {
                    tile.value[head][Tile::kOfPoint * point(r) + kind(r)] = sum;
                } else {
                    exchange().products[head][part][point(r)] = sum;
                }
            }
        }
        if constexpr (kTeam > 1) {
            __syncthreads();
            if (lane < kWarpPoints) {
                const int mine = own_point();
                for (int head = 0; head < kHeads; ++head) {
                    const auto& products = exchange().products[head];
                    tile.value[head][mine] = products[0][mine] + products[1][mine];
                }
            }
        }
        __syncwarp();
    }

  private:
    static constexpr int kPart = 32;              // outputs that a warp makes at a time
    static constexpr int kChunk = kPart * kTeam;  // outputs of which the weights come together
    static constexpr int kChunkBytes = kChunk * W * 2;
    static constexpr int kRing = 4;  // chunks, where not all fit
    static constexpr bool kMayStay = W < 256;

    // Of teams of two warps, behind the ring. Barriers of the block, as each chunk has one, lie
    // between those who write and those who read.
    struct Exchange {
        uint4 features[kWarps / kTeam][W / 16][32];  // as a lane holds those of 16
        float products[kHeads][2][Tile::kPoints];
        bool works[kWarps];
    };
    static constexpr int kExchangeBytes = kTeam > 1 ? static_cast<int>(sizeof(Exchange)) : 0;
    __device__ Exchange& exchange() const {
        return *reinterpret_cast<Exchange*>(ring_ + kRing * kChunkBytes);
    }

    static __host__ __device__ int chunks(const Path& path) {
        return (path.length() - 1) * (W / kChunk);
    }

    // The number of the i-th feature that the first warp of a team makes.
    static __device__ __forceinline__ int feature(int i) { return i / kPart * kChunk + i % kPart; }

    // A lane's sums of the eight features from the warp's i-th on, as operands of multiply().
    static __device__ __forceinline__ void put(uint32_t (&out)[W / 16 / kTeam][4], int i,
                                               const float (&sum)[4]) {
        out[i / 16][i / 8 % 2 * 2] = pack_halves(sum[0], sum[1]);
        out[i / 16][i / 8 % 2 * 2 + 1] = pack_halves(sum[2], sum[3]);
    }

    // What the warp has put out, to itself and, after a barrier, to all of the team.
    __device__ __forceinline__ void hand_on(
        uint32_t (&in)[kTiles][W / 16][4], const uint32_t (&out)[kTiles][W / 16 / kTeam][4]) const {
        if constexpr (kTeam == 1) {
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
#pragma unroll
                for (int k = 0; k < W / 16; ++k) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) in[t][k][i] = out[t][k][i];
                }
            }
        } else {
            const int warp = threadIdx.x / 32;
            auto* const features = exchange().features[warp / kTeam];
#pragma unroll
            for (int k = 0; k < W / 16 / kTeam; ++k) {
                features[(warp % kTeam * kPart + feature(16 * k)) / 16][threadIdx.x % 32] = {
                    out[0][k][0], out[0][k][1], out[0][k][2], out[0][k][3]};
            }
        }
    }

    __device__ __forceinline__ void receive(uint32_t (&in)[kTiles][W / 16][4]) const {
        if constexpr (kTeam > 1) {
            const auto* const features = exchange().features[threadIdx.x / 32 / kTeam];
#pragma unroll
            for (int k = 0; k < W / 16; ++k) {
                const uint4 four = features[k][threadIdx.x % 32];
                in[0][k][0] = four.x, in[0][k][1] = four.y;
                in[0][k][2] = four.z, in[0][k][3] = four.w;
            }
        }
    }

    __device__ __forceinline__ const float4* factors_of(uint32_t film, int layer) const {
        return reinterpret_cast<const float4*>(network_.film) + (film + layer * (W / 2));
    }

    // The sines of a lane's sums: rows group (sum[0], sum[1]) and group + 8, of outputs n and n+1.
    __device__ __forceinline__ void activate(float (&sum)[4], const float4* const* factors,
                                             int n) const {
        float4 of[2];  // scale, scale, shift, shift
        float phase[4];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            of[r] = factors[r][n / 2];
            phase[2 * r] = sum[2 * r] * of[r].x + of[r].z;
            phase[2 * r + 1] = sum[2 * r + 1] * of[r].y + of[r].w;
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
                const float slope = __cosf(of_value) * (i ? of[0].y : of[0].x);
                sum[i] = has_value ? __sinf(of_value) : slope * sum[i];
                sum[2 + i] *= slope;
            }
        }
    }

    __device__ __forceinline__ void apply_heads(const float (&feature)[4], int offset, int n,
                                                int tile,
                                                float (&product)[kHeads][2 * kTiles]) const {
        const float* const head =
            (kHeads == 1 ? network_.sdf_head : network_.texture_head) + offset;
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
