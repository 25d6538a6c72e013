// FiLM-SIRENs with products of fp16 numbers on tensor cores, all else in fp32; sm_80 and later.
#pragma once

#include <cstdlib>

#include "cuda/half_lanes.cuh"
#include "cuda/tile.cuh"

namespace sdfgan::cuda {

// A warp keeps its rows in registers: what a layer puts out has the layout of what the next takes
// in (see multiply()). The matrices, packed by sdfgan.ops.pack_matrices so that each lane finds its
// 16 bytes together, lie in shared memory, all of them if they fit; else they pass through it in a
// ring. A warp waits only for the chunk that it needs, and for the slowest warp where the ring is
// full: then some multiply while others compute sines.
//
// The time of few rows is that of a chain of products. Where a block has but few, teams of warps
// share them: each warp makes 16 outputs of every layer, which pass through shared memory. Results
// are the same to the last bit.
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
        if (!kMayStay || all > most) {
            const char* const drifts = std::getenv("SDFGAN_TRACE_RING");  // 0: for measurements
            const int slots = min_of((most - kBarrierBytes) / kChunkBytes, kMostSlots);
            if (slots < kRing || (drifts && *drifts == '0')) return kRing * kChunkBytes;
            return slots * kChunkBytes + kBarrierBytes;
        }
        return kMayShare && all + kExchangeBytes <= most ? all + kExchangeBytes : all;
    }

    // `bytes` are at `ring`, aligned to 16.
    __device__ HalfNetwork(const FilmSiren<float>& network, const Path& path, unsigned char* ring,
                           int bytes)
        : network_(network),
          path_(path),
          ring_(ring),
          resident_(kMayStay && bytes >= chunks(path) * kChunkBytes),
          shares_(kMayShare && bytes == chunks(path) * kChunkBytes + kExchangeBytes),
          slots_(!resident_ && bytes % kChunkBytes != 0 ? bytes / kChunkBytes : 0) {
        if (slots_ > 0) {
            if (threadIdx.x == 0) {
                for (int i = 0; i < slots_; ++i) {
                    start_barrier(full(i), kCopyArrivals);
                    start_barrier(empty(i), kWarps);
                }
                publish_barriers();
            }
            __syncthreads();
            for (int i = 0; i < ahead(); ++i) copy_ahead(i, i);
            return;
        }
        // A ring has all its chunks or, for a path without matrices, none.
        const int first = resident_ ? chunks(path) : min_of(chunks(path), kRing - 1);
        for (int i = 0; i < first; ++i) fetch(i, i);
        if (resident_) {
            wait_for_copies<0>();
            __syncthreads();
        }
    }

    // A block must not end before its copies.
    __device__ ~HalfNetwork() {
        wait_for_copies<0>();
        if (slots_ == 0) return;
        for (int i = 0; i < ahead(); ++i) {
            wait(full(turn_), parity_);
            next_turn();
        }
    }

    static constexpr int kWarpPoints = Tile::kPoints / kWarps;

    // The point of a tile that this thread looks after, or -1.
    static __device__ int own_point() {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        return lane < kWarpPoints ? warp * kWarpPoints + lane : -1;
    }

    // The point of the tile where this thread puts the one that it `has`, else -1, so that few
    // points need few rows. Once no thread gets `more`, the block's warps share all its points if
    // those take no more than `rounds` rounds, of kTiles tiles for each team of warps.
    __device__ int place(bool has, bool more, int rounds) {
        if (!resident_) return has ? own_point() : -1;
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const unsigned all = __ballot_sync(~0u, has);
        const int before = __popc(all & ((1u << lane) - 1));
        shared_tiles_ = all ? kAlone : 0;
        if constexpr (kMayShare) {
            if (shares_ && rounds > 0 && !__any_sync(~0u, more)) {
                int (&points)[kWarps] = exchange().points;
                if (lane == 0) points[warp] = __popc(all);
                __syncthreads();
                int of_warps_before = 0, of_block = 0;
                for (int w = 0; w < kWarps; ++w) {
                    if (w < warp) of_warps_before += points[w];
                    of_block += points[w];
                }
                shared_tiles_ = (of_block + kTeamsTile - 1) / kTeamsTile;
                if (shared_tiles_ <= rounds * kTiles) {
                    return has ? of_warps_before + before : -1;
                }
                shared_tiles_ = kAlone;
                __syncthreads();  // or the next counts come before these are read
            }
        }
        __syncwarp();  // what the lanes read of the tile before may be another's now
        return has ? warp * kWarpPoints + before : -1;
    }

    // Whether anyone of those who go on together has work. What they wrote before is seen after.
    __device__ bool any(bool work) const {
        if (!resident_) return __syncthreads_or(work);
        if (shared_tiles_ > 0) {
            __syncthreads();
        } else {
            __syncwarp();
        }
        return shared_tiles_ != 0;
    }

    // After any(). Of warps without rows to evaluate, only the copies are needed. Returns how many
    // rows this warp has evaluated, or its share of the team's.
    __device__ int evaluate(Tile& tile, bool work) {
        const int warp = threadIdx.x / 32;
        if constexpr (kMayShare) {
            const int team = warp / kTeam;
            for (int i = 0; i < shared_tiles_; i += kTiles) {
                const int first_row = i * kTeamsTile;
                if (i + 1 < shared_tiles_) {
                    evaluate_rows<kTeam, kTiles>(tile, first_row + team * kWarpRows);
                } else {
                    evaluate_rows<kTeam, 1>(tile, first_row + team * 16);
                }
            }
            if (shared_tiles_ > 0) return shared_tiles_ * (kTeamsTile / kWarps);
        }
        const unsigned all = __ballot_sync(~0u, work);
        const int tiles = resident_ ? (__popc(all) + 15) / 16 : all ? kTiles : 0;
        if (!all) {
            if (!resident_) {
                for (int i = 0; i < chunks(path_); ++i) {
                    chunk(i);
                    release();
                }
            }
        } else if (kTiles > 1 && tiles == 1) {
            evaluate_rows<1, 1>(tile, warp * kWarpRows);
        } else {
            evaluate_rows<1, kTiles>(tile, warp * kWarpRows);
        }
        __syncwarp();
        return 16 * tiles;
    }

  private:
    static constexpr int kChunk = 32;  // outputs of which the weights come together
    static constexpr int kChunkBytes = kChunk * W * 2;
    static constexpr int kRing = 4;  // chunks, where not all fit
    static constexpr int kMostSlots = 12;
    static constexpr int kBarrierBytes = kMostSlots * 16;  // behind a ring in which warps drift
    static_assert(kBarrierBytes < kChunkBytes, "or it could be taken for chunks");
    static constexpr bool kMayStay = W < 256;
    static constexpr bool kMayShare = kMayStay && !kTangents && kHeads == 1;
    static constexpr int kTeam = kMayShare ? W / 16 : 1;  // warps
    static constexpr int kTeams = kWarps / kTeam;
    static constexpr int kTeamsTile = kTeams * 16;  // rows, if each has a tile

    // What the warps of a team tell each other, behind the matrices.
    struct Exchange {
        union {
            uint4 features[kTeams][kTiles][W / 16][32];  // as a lane holds those of 16
            float2 terms[kTeams][kTiles][W / 8][32];     // of the head: of 8, for a lane's rows
        };
        int points[kWarps];
    };
    static constexpr int kExchangeBytes = kMayShare ? static_cast<int>(sizeof(Exchange)) : 0;
    __device__ Exchange& exchange() const {
        return *reinterpret_cast<Exchange*>(ring_ + chunks(path_) * kChunkBytes);
    }

    static __host__ __device__ int chunks(const Path& path) {
        return (path.length() - 1) * (W / kChunk);
    }

    // The heads of T tiles of 16 rows, from `first_row` on, by a warp or a team of them. A
    // team must be all the block's, since it waits for the block.
    template <int kMembers, int T>
    __device__ __forceinline__ void evaluate_rows(Tile& tile, int first_row) {
        constexpr bool kShared = kMembers > 1;
        constexpr int kOwn = W / kMembers;        // outputs of each layer
        constexpr int kPart = kShared ? 16 : 32;  // at a time
        const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4 * 2;
        const int part = threadIdx.x / 32 % kMembers;
        const int offset = part * kOwn + pair;  // of the lane's outputs; what is added is constant
        constexpr int kLaneRows = 2 * T;
        float x[kLaneRows][3];
        const float4* factors[kLaneRows];  // of a layer, from this lane's first output on
        // With derivatives, even groups hold the value and d/dx, odd ones d/dy and d/dz.
        const auto kind = [&](int r) { return kTangents ? group % 2 * 2 + r : 0; };
        const auto point = [&](int r) {
            return kTangents ? first_row / 4 + group / 2 : first_row + group + 8 * r;
        };
#pragma unroll
        for (int r = 0; r < kLaneRows; ++r) {
            for (int axis = 0; axis < 3; ++axis) {
                x[r][axis] = row_input(tile, point(r), kind(r), axis);
            }
            factors[r] = reinterpret_cast<const float4*>(network_.film) +
                         ((tile.film[point(r)] + offset) / 2 + path_.layer(0) * (W / 2));
        }

        uint32_t in[T][W / 16][4], out[T][kOwn / 16][4];
        float product[kHeads][kLaneRows] = {};
        float2 terms[T][kPart / 8];  // of a team's head
        const int length = path_.length();
        constexpr bool kMayEnd = kHeads > 1;  // with the first layer: an sdf has a layer of its own
        const float2* const first_weights =
            reinterpret_cast<const float2*>(network_.first + 3 * offset);
#pragma unroll
        for (int n = 0; n < kOwn; n += 8) {
            if (n % 32 == 0) __syncwarp();  // or all loads come first, and registers spill
            float sum[T][4];
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
                        std::fmaf(w[3 * i + 2], x[r][2],
                                  std::fmaf(w[3 * i + 1], x[r][1], w[3 * i] * x[r][0]));
                }
            }
#pragma unroll
            for (int t = 0; t < T; ++t) {
                activate<kTangents>(sum[t], load_factors(factors + 2 * t, n));
                if (kMayEnd && length == 1) apply_heads(sum[t], offset + n, product, t);
                put(out[t], n, sum[t]);
            }
        }
        hand_on<kShared>(in, out);
        for (int step = 1; step < length; ++step) {
            const bool last = step + 1 == length;
#pragma unroll
            for (int r = 0; r < kLaneRows; ++r) {
                factors[r] += (path_.layer(step) - path_.layer(step - 1)) * (W / 2);
            }
#pragma unroll
            for (int begin = 0; begin < kOwn; begin += kPart) {
                const int number = (step - 1) * (W / kChunk) + begin / kChunk;
                const uint4* weights = (kShared ? chunk_at(number) : chunk(number)) +
                                       part * (kOwn / 16) * (W / 16) * 32 + lane;
                Factors of[kPart / 8][T];
                if constexpr (kShared) {  // nothing else hides the way to memory
#pragma unroll
                    for (int i = 0; i < kPart / 8; ++i) {
#pragma unroll
                        for (int t = 0; t < T; ++t) {
                            of[i][t] = load_factors(factors + 2 * t, 8 * i);
                        }
                    }
                    receive(in);
                }
                float sum[kPart / 8][T][4] = {};
#pragma unroll
                for (int k = 0; k < W / 16; ++k) {
#pragma unroll
                    for (int n = 0; n < kPart / 16; ++n) {
                        const uint4 b = weights[(n * (W / 16) + k) * 32];
#pragma unroll
                        for (int t = 0; t < T; ++t) {
                            multiply(sum[2 * n][t], in[t][k], b.x, b.y);
                            multiply(sum[2 * n + 1][t], in[t][k], b.z, b.w);
                        }
                    }
                }
                if constexpr (!kShared) release();
#pragma unroll
                for (int i = 0; i < kPart / 8; ++i) {
                    const int n = begin + 8 * i;
#pragma unroll
                    for (int t = 0; t < T; ++t) {
                        if constexpr (!kShared) of[i][t] = load_factors(factors + 2 * t, n);
                        activate<kTangents>(sum[i][t], of[i][t]);
                        if constexpr (kShared) {
                            if (last) terms[t][i] = head_term(sum[i][t], offset + n, 0);
                        } else {
                            if (last) apply_heads(sum[i][t], offset + n, product, t);
                        }
                        put(out[t], n, sum[i][t]);
                    }
                }
            }
            if constexpr (kShared) __syncthreads();  // all have received
            if (!kShared || !last) hand_on<kShared>(in, out);
        }
        if constexpr (kShared) {
            // A lane sums the terms of its rows in the order in which one warp would meet them.
            const int team = threadIdx.x / 32 / kTeam;
#pragma unroll
            for (int t = 0; t < T; ++t) {
#pragma unroll
                for (int i = 0; i < kPart / 8; ++i) {
                    exchange().terms[team][t][part * (kOwn / 8) + i][lane] = terms[t][i];
                }
            }
            __syncthreads();
            if (part < T) {
                float of_tile[1][2] = {};
#pragma unroll
                for (int i = 0; i < W / 8; ++i) {
                    const float2 term = exchange().terms[team][part][i][lane];
                    of_tile[0][0] += term.x;
                    of_tile[0][1] += term.y;
                }
                sum_of_lanes<1>(of_tile, [&](int, int r) -> float& {
                    return tile.value[0][first_row + 16 * part + group + 8 * r];
                });
            }
            __syncthreads();
        } else {
            sum_of_lanes<T>(product, [&](int head, int r) -> float& {
                return tile.value[head][Tile::kOfPoint * point(r) + kind(r)];
            });
        }
    }

    // Of the four lanes that have the same rows, to where `to` says.
    template <int T, class To>
    static __device__ __forceinline__ void sum_of_lanes(const float (&product)[kHeads][2 * T],
                                                        const To& to) {
#pragma unroll
        for (int head = 0; head < kHeads; ++head) {
#pragma unroll
            for (int r = 0; r < 2 * T; ++r) {
                float sum = product[head][r];
                sum += __shfl_xor_sync(~0u, sum, 1);
                sum += __shfl_xor_sync(~0u, sum, 2);
                if (threadIdx.x % 4 == 0) to(head, r) = sum;
            }
        }
    }

    // What the warp has put out, to itself or to all of its team.
    template <bool kShared, int T, int kOuts>
    __device__ __forceinline__ void hand_on(uint32_t (&in)[T][W / 16][4],
                                            const uint32_t (&out)[T][kOuts][4]) const {
        if constexpr (kShared) {
            static_assert(kOuts == 1, "");
            const int warp = threadIdx.x / 32;
#pragma unroll
            for (int t = 0; t < T; ++t) {
                exchange().features[warp / kTeam][t][warp % kTeam][threadIdx.x % 32] = {
                    out[t][0][0], out[t][0][1], out[t][0][2], out[t][0][3]};
            }
            __syncthreads();
        } else {
#pragma unroll
            for (int t = 0; t < T; ++t) {
#pragma unroll
                for (int k = 0; k < W / 16; ++k) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) in[t][k][i] = out[t][k][i];
                }
            }
        }
    }

    template <int T>
    __device__ __forceinline__ void receive(uint32_t (&in)[T][W / 16][4]) const {
        const auto& features = exchange().features[threadIdx.x / 32 / kTeam];
#pragma unroll
        for (int k = 0; k < W / 16; ++k) {
#pragma unroll
            for (int t = 0; t < T; ++t) {
                const uint4 four = features[t][k][threadIdx.x % 32];
                in[t][k][0] = four.x, in[t][k][1] = four.y;
                in[t][k][2] = four.z, in[t][k][3] = four.w;
            }
        }
    }

    // What features n and n + 1 of a lane's two rows add to a head.
    __device__ __forceinline__ float2 head_term(const float (&feature)[4], int n, int head) const {
        const float* const heads = kHeads == 1 ? network_.sdf_head : network_.texture_head;
        const float2 w = *reinterpret_cast<const float2*>(heads + head * W + n);
        return {std::fmaf(feature[0], w.x, feature[1] * w.y),
                std::fmaf(feature[2], w.x, feature[3] * w.y)};
    }

    template <int kLaneRows>
    __device__ __forceinline__ void apply_heads(const float (&feature)[4], int n,
                                                float (&product)[kHeads][kLaneRows],
                                                int tile) const {
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
            const float2 term = head_term(feature, n, h);
            product[h][2 * tile] += term.x;
            product[h][2 * tile + 1] += term.y;
        }
    }

    // Starts to copy the chunk `index` of the path's to a place in shared memory.
    __device__ void fetch(int index, int place) {
        const unsigned char* from = source(index);
        unsigned char* to = ring_ + place * kChunkBytes;
        for (int i = 16 * threadIdx.x; i < kChunkBytes; i += 16 * kNetworkThreads) {
            copy_16_bytes(to + i, from + i);
        }
        commit_copies();
    }

    __device__ const unsigned char* source(int index) const {
        const int step = 1 + index / (W / kChunk), part = index % (W / kChunk);
        const auto* matrices = static_cast<const unsigned char*>(network_.hidden);
        const int64_t number = int64_t{path_.layer(step) - 1} * (W / kChunk) + part;
        return matrices + number * kChunkBytes;
    }

    // Of a ring in which warps drift: the chunks under way before the one that a warp is at. As
    // many again, which slower warps may still read, are behind it.
    __device__ int ahead() const { return chunks(path_) > 0 ? slots_ / 2 : 0; }
    __device__ uint64_t* full(int slot) const {
        return reinterpret_cast<uint64_t*>(ring_ + slots_ * kChunkBytes) + slot;
    }
    __device__ uint64_t* empty(int slot) const { return full(kMostSlots + slot); }

    // Copies a chunk to the slot that is `distance` after the one whose turn it is, when all warps
    // are done with what is there. The warps take turns in this.
    __device__ void copy_ahead(int index, int distance) {
        int slot = turn_ + distance;
        unsigned parity = parity_;
        if (slot >= slots_) slot -= slots_, parity ^= 1;
        if (threadIdx.x / 32 != slot % kWarps) return;
        wait(empty(slot), parity ^ 1);
        copy_by_warp<kChunkBytes>(ring_ + slot * kChunkBytes, source(index % chunks(path_)),
                                  full(slot));
    }

    __device__ __forceinline__ void next_turn() {
        if (++turn_ == slots_) turn_ = 0, parity_ ^= 1;
    }

    // This warp has read its chunk.
    __device__ __forceinline__ void release() {
        if (slots_ == 0) return;
        __syncwarp();
        if (threadIdx.x % 32 == 0) arrive(empty(turn_));
        next_turn();
    }

    // The chunk `index`, which must be asked for in turn and released.
    __device__ const uint4* chunk(int index) {
        if (slots_ > 0) {
            copy_ahead(index + ahead(), ahead());
            wait(full(turn_), parity_);
            return chunk_at(turn_);
        }
        int place = index;
        if (!resident_) {
            wait_for_copies<kRing - 2>();
            __syncthreads();  // the chunk is there, and all are done with the one before
            fetch((index + kRing - 1) % chunks(path_), (turn_ + kRing - 1) % kRing);
            place = turn_;
            turn_ = (turn_ + 1) % kRing;
        }
        return chunk_at(place);
    }

    __device__ __forceinline__ const uint4* chunk_at(int place) const {
        return reinterpret_cast<const uint4*>(ring_ + place * kChunkBytes);
    }

    const FilmSiren<float>& network_;
    const Path path_;
    unsigned char* const ring_;
    const bool resident_, shares_;
    const int slots_;  // of a ring in which warps drift, else 0
    int turn_ = 0;     // place of the next chunk in the ring
    unsigned parity_ = 0;
    static constexpr int kAlone = -1;
    int shared_tiles_ = kAlone;  // of each team; kAlone: each warp evaluates its own
};

}  // namespace sdfgan::cuda
