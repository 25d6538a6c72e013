// FiLM-SIRENs on CUDA: the rows of a block go through the layers together.
//
// A row is a point, or for gradients a fourth of one: the value and its derivatives along x, y, z
// (forward mode: the derivative of sin(scale s + shift) is cos(scale s + shift) scale ds). Blocks
// put the points of their rows and their FiLM into a Tile, call evaluate(), and find the heads'
// products with the last features there.
//
// HalfNetwork: products of fp16 numbers on tensor cores, all else in fp32 (sm_80 and later).
// FullNetwork: fp32 throughout.
#pragma once

#include "core/sine.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {

constexpr int kNetworkThreads = 256;
constexpr int kWarps = kNetworkThreads / 32;

// The layers that lead to one result: [0, trunk), then [begin, end). At least one.
struct Path {
    int trunk, begin, end;
    __host__ __device__ int length() const { return trunk + end - begin; }
    __host__ __device__ int layer(int step) const {
        return step < trunk ? step : begin + step - trunk;
    }
};

// In shared memory: what goes in and comes out.
template <int kRows, int kTangents, int kHeads>
struct Tile {
    static constexpr int kOfPoint = kTangents ? 4 : 1;  // rows
    static constexpr int kPoints = kRows / kOfPoint;
    float x[kPoints][3];
    uint32_t film[kPoints];      // offset of the image's FiLM in scale and shift
    float value[kHeads][kRows];  // row of point i, and of its derivative along axis j - 1: 4 i + j
};

// What a row's first layer is multiplied with: the point, or the axis of the derivative.
template <class Tile>
__device__ __forceinline__ float row_input(const Tile& tile, int point, int kind, int axis) {
    return kind == 0 ? tile.x[point][axis] : (axis == kind - 1 ? 1.f : 0.f);
}

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
        float2 scale[2];
        float phase[4];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const uint32_t at = film[r] + layer * W + n;
            scale[r] = *reinterpret_cast<const float2*>(network_.scale + at);
            const float2 shift = *reinterpret_cast<const float2*>(network_.shift + at);
            phase[2 * r] = sum[2 * r] * scale[r].x + shift.x;
            phase[2 * r + 1] = sum[2 * r + 1] * scale[r].y + shift.y;
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
                const float slope = __cosf(of_value) * (i ? scale[0].y : scale[0].x);
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

    __device__ bool any(bool work) const { return __syncthreads_or(work); }

    __device__ void evaluate(Tile& tile, bool) {
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

template <class Tile>
__host__ __device__ constexpr int tile_bytes() {
    return (static_cast<int>(sizeof(Tile)) + 15) / 16 * 16;
}

// Launches kernel(parameters, path, bytes of the network) with a Tile, the `more` bytes that the
// kernel wants, and the network's memory in shared memory; at most `most` blocks, and no more than
// run at the same time.
template <class Network, class Parameters>
void launch_network(const char* what, void (*kernel)(Parameters, Path, int), const Parameters& p,
                    const Path& path, int more, int64_t most, const Where& where) {
    int limit = 0, processors = 0, resident = 0;
    check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, where.device),
          what);
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, where.device), what);
    const int fixed = tile_bytes<typename Network::Tile>() + more;
    const int bytes = Network::memory(path, limit - fixed);
    if (fixed + bytes > limit) {
        throw std::runtime_error(std::string(what) + ": too little shared memory");
    }
    check(allow_shared_memory(kernel, limit), what);  // the same for every thread that launches it
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, kNetworkThreads,
                                                        fixed + bytes),
          what);
    const int64_t blocks = min_of<int64_t>(most, int64_t{max_of(resident, 1)} * processors);
    check(
        launch_kernel(kernel, blocks, kNetworkThreads, fixed + bytes, where.stream, p, path, bytes),
        what);
}

template <class T>
struct Type {
    using type = T;
};

// From the FiLM of one image to that of the next.
__host__ __device__ inline int64_t film_size(const FilmSiren<float>& n) {
    return (n.trunk_layers + n.sdf_layers + n.texture_layers) * n.width;
}

// Calls f(Type<...>) with the class for the network's width and precision.
template <bool kTangents, int kHeads, class F>
void with_network(const char* what, const FilmSiren<float>& network, const Where& where, F&& f) {
    const auto pick = [&](auto width) {
        constexpr int W = decltype(width)::value;
        if (network.matrices == Matrices::kHalf) {
            f(Type<HalfNetwork<W, kTangents, kHeads>>{});
        } else {
            f(Type<FullNetwork<W, kTangents, kHeads>>{});
        }
    };
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, where.device), what);
    if (network.matrices == Matrices::kHalf && major < 8) {
        throw std::runtime_error(std::string(what) + ": fp16 needs compute capability 8.0");
    }
    if (network.images * film_size(network) > UINT32_MAX) {
        throw std::runtime_error(std::string(what) + ": too many images");
    }
    if (network.width == 64) return pick(std::integral_constant<int, 64>{});
    if (network.width == 128) return pick(std::integral_constant<int, 128>{});
    if (network.width == 256) return pick(std::integral_constant<int, 256>{});
    throw std::runtime_error(std::string(what) + ": the width must be 64, 128 or 256");
}

inline Path sdf_path(const FilmSiren<float>& n) {
    return {n.trunk_layers, n.trunk_layers, n.trunk_layers + n.sdf_layers};
}

inline Path texture_path(const FilmSiren<float>& n) {
    const int begin = n.trunk_layers + n.sdf_layers;
    return {n.trunk_layers, begin, begin + n.texture_layers};
}

// The part of the sdf that is no network's.
__device__ __forceinline__ float prior_radius(const FilmSiren<float>& n, const float (&x)[3]) {
    return sqrtf(x[0] * x[0] + x[1] * x[1] + x[2] * x[2] + n.constants[0]);
}

}  // namespace sdfgan::cuda
