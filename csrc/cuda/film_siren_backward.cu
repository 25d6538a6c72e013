// The gradient of FiLM-SIRENs by all that their answers depend on.
//
// Warps take the points forward and back through all layers (differentiator.cuh). For the matrices'
// gradients they leave each layer's features, and what multiplies them, in memory, and a second
// kernel sums their products; both are called for a chunk of tiles at a time, so that memory is
// bounded. Sums over tiles and slices of tiles are added in order by a third: no atomics but a
// maximum, and the same bits in each run on the same device. Which tile belongs to which image is
// found out on the device: nothing waits for it.
#include "cuda/differentiator.cuh"
#include "cuda/network.cuh"

namespace sdfgan::cuda {
namespace {

using Work = BackwardWork;

constexpr const char* kWhat = "film_siren_backward";

// ---- before all: where tiles begin, the largest power of two, zeros

constexpr int kPrepareThreads = 256;

__global__ void __launch_bounds__(kPrepareThreads) prepare_kernel(Work w) {
    const FilmSirenBackward<float>& p = w.p;
    const int64_t images = p.network.images, width = p.network.width;
    const int64_t stride = int64_t{gridDim.x} * blockDim.x;
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    const int64_t known = p.begin[images];
    unsigned largest = 0;
    for (int64_t i = thread; i < p.count; i += stride) {
        const int64_t point = p.order[i];
        const float of_point = i < known ? largest_of_point(p, point) : 0.f;
        if (of_point > 0) largest = max_of(largest, power_bits(of_point));
        for (int axis = 0; axis < 3 && i >= known; ++axis) p.grad_points[3 * point + axis] = NAN;
    }
    largest = max_of_warp(largest);
    if (threadIdx.x % kWarp == 0 && largest > 0) atomicMax(w.largest, largest);
    const auto clear = [&](float* values, int64_t size) {
        for (int64_t i = thread; i < size; i += stride) values[i] = 0;
    };
    clear(p.grad_scale, images * w.layers * width);
    clear(p.grad_shift, images * w.layers * width);
    clear(p.grad_first, 3 * width);
    clear(p.grad_sdf_head, width);
    clear(p.grad_texture_head, 3 * width);
    clear(p.grad_constants, 2);
    if (thread >= kWarp) return;
    int64_t total = 0;
    for (int64_t first = 0; first < images; first += kWarp) {
        const int64_t b = first + thread;
        int64_t tiles = 0;
        if (b < images) tiles = (p.begin[b + 1] - p.begin[b] + kTilePoints - 1) / kTilePoints;
        const int64_t up_to =
            scan_of_lanes<kWarp>(tiles, [](int64_t a, int64_t own) { return a + own; });
        if (b < images) w.tile_begin[b] = total + up_to - tiles;
        total += __shfl_sync(kAllLanes, up_to, kWarp - 1);
    }
    if (thread == 0) w.tile_begin[images] = total;
}

// ---- the points

template <class Products>
__global__ void __launch_bounds__(Products::kWarps* kWarp, Products::kBlocks)
    points_kernel(Work w) {
    const int64_t warp = int64_t{blockIdx.x} * Products::kWarps + threadIdx.x / kWarp;
    if (warp >= w.warps) return;
    Differentiator<Products>(w, warp, shared_memory()).run();
}

// ---- the matrices: sums of u h^T over slices of a chunk's tiles

__host__ __device__ int64_t blocks_of_matrix(int64_t width) {
    return width / kOuterRows * (width / kOuterColumns);
}

template <class Products>
__global__ void __launch_bounds__(256) outer_kernel(Work w) {
    using Word = typename Products::Word;
    constexpr int W = Products::kWidth, kAcross = W / kOuterColumns;
    const int64_t blocks = blocks_of_matrix(W), matrices = w.layers - 1;
    const int64_t warp = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
    const int64_t slice = warp / (blocks * matrices);
    const int layer = 1 + static_cast<int>(warp / blocks % matrices), block = warp % blocks;
    if (slice >= w.slices || layer >= w.end) return;
    const int below = layer == w.sdf_end ? w.trunk - 1 : layer - 1;
    float* const out = w.matrices + warp * (kOuterSums * kWarp) + threadIdx.x % kWarp;
    float sums[kOuterSums];
#pragma unroll
    for (int i = 0; i < kOuterSums; ++i) sums[i] = w.chunk_begin > 0 ? out[i * kWarp] : 0.f;
    const int64_t count = tiles_of_chunk(w), end = (slice + 1) * count / w.slices;
    int64_t tile = slice * count / w.slices;
    const int64_t words = W * kTilePoints;
    const Word* u = static_cast<const Word*>(w.adjoints) + (tile * w.layers + layer) * words +
                    block / kAcross * (kOuterRows * kTilePoints);
    const Word* h = static_cast<const Word*>(w.features) + (tile * w.layers + below) * words +
                    block % kAcross * (kOuterColumns * kTilePoints);
    for (; tile < end; ++tile, u += w.layers * words, h += w.layers * words) {
        Products::add_outer(u, h, sums);
    }
#pragma unroll
    for (int i = 0; i < kOuterSums; ++i) out[i * kWarp] = sums[i];
}

// ---- sums of what warps and slices have found, in order

constexpr int kSumBlocks = 4;  // of a multiprocessor
constexpr int kSumThreads = 256;
constexpr int kRowColumns = 8, kMatrixColumns = 32;  // that a block sums at a time

// The sum of value(i), begin <= i < end, for each of kColumns columns, given to the first threads.
// By all threads of a block.
template <int kColumns, class Value>
__device__ float sum_in_order(int64_t begin, int64_t end, const Value& value) {
    constexpr int kParts = kSumThreads / kColumns;
    float* const parts = reinterpret_cast<float*>(shared_memory());
    float sum = 0;
#pragma unroll 4
    for (int64_t i = begin + threadIdx.x / kColumns; i < end; i += kParts) sum += value(i);
    parts[threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    if (threadIdx.x < kColumns) {
        for (int i = 0; i < kParts; ++i) sum += parts[i * kColumns + threadIdx.x];
    }
    __syncthreads();  // or the next sum's parts come before these are read
    return sum;
}

// Eight columns of a row, of those of FiLM of every image and then the common ones, by a block.
__device__ void sum_rows(const Work& w, int64_t number) {
    const FilmSirenBackward<float>& p = w.p;
    const int64_t W = p.network.width, images = p.network.images, across = W / kRowColumns;
    const int64_t film_rows = 2 * w.layers, row = number / across;
    const int64_t column = number % across * kRowColumns + threadIdx.x % kRowColumns;
    const int64_t count = tiles_of_chunk(w), warps = w.warps;
    if (count == 0) return;
    const auto works = [&](int64_t warp) {
        return warp * count / warps < (warp + 1) * count / warps;
    };
    if (row < images * film_rows) {
        const int64_t image = row / film_rows, of_image = row % film_rows;
        const int64_t layer = of_image / 2;
        const int64_t first = max_of(w.tile_begin[image] - w.chunk_begin, int64_t{0});
        const int64_t last = min_of(w.tile_begin[image + 1] - w.chunk_begin, count) - 1;
        if (first > last || layer >= w.end) return;
        const auto warp_of = [&](int64_t tile) { return ((tile + 1) * warps - 1) / count; };
        const float sum =
            sum_in_order<kRowColumns>(warp_of(first), warp_of(last) + 1, [&](int64_t warp) {
                const int64_t entry = (warp + image) * film_rows + of_image;
                return works(warp) ? w.film_sums[entry * W + column] : 0.f;
            });
        float* const out = of_image % 2 == 0 ? p.grad_scale : p.grad_shift;
        if (threadIdx.x < kRowColumns) out[(image * w.layers + layer) * W + column] += sum;
        return;
    }
    const int64_t common = row - images * film_rows;
    const bool texture = common >= kTextureHead && common < kTextureHead + 3;
    const bool first = common >= kFirst && common < kFirst + 3;
    const bool constants = common == kConstants && column < 2;
    if (!(common == kSdfHead || first || common == kConstants || (texture && p.grad_texture))) {
        return;
    }
    const float sum = sum_in_order<kRowColumns>(0, warps, [&](int64_t warp) {
        const bool is_there = works(warp) && (common != kConstants || constants);
        return is_there ? w.common[(warp * kCommonRows + common) * W + column] : 0.f;
    });
    if (threadIdx.x >= kRowColumns) return;
    if (common == kSdfHead) p.grad_sdf_head[column] += sum;
    if (texture) p.grad_texture_head[(common - kTextureHead) * W + column] += sum;
    if (first) p.grad_first[3 * column + common - kFirst] += sum;
    if (constants) p.grad_constants[column] += sum;
}

__host__ __device__ int64_t rows_of_sums(const Work& w) {
    const FilmSiren<float>& n = w.p.network;
    return (n.images * 2 * w.layers + kCommonRows) * (n.width / kRowColumns);
}

__global__ void __launch_bounds__(kSumThreads) rows_kernel(Work w) {
    for (int64_t i = blockIdx.x; i < rows_of_sums(w); i += gridDim.x) sum_rows(w, i);
}

// Neighbours among the sums that a slice has, by a block.
template <class Products>
__device__ void sum_matrices(const Work& w, int64_t number) {
    constexpr int64_t W = Products::kWidth;
    const int64_t at = number * kMatrixColumns + threadIdx.x % kMatrixColumns;
    const int lane = at % kWarp, index = at / kWarp % kOuterSums;
    const int64_t block = at / (kOuterSums * kWarp) % blocks_of_matrix(W), matrix = at / (W * W);
    const int64_t row = block / (W / kOuterColumns) * kOuterRows + Products::outer_row(index, lane);
    const int64_t column =
        block % (W / kOuterColumns) * kOuterColumns + Products::outer_column(index, lane);
    const int64_t size = (w.layers - 1) * W * W;
    const int64_t slices = matrix + 1 < w.end ? w.slices : 0;
    const float sum = sum_in_order<kMatrixColumns>(
        0, slices, [&](int64_t i) { return w.matrices[i * size + at]; });
    const float unit = *w.largest > 0 ? as_float(*w.largest) : 1.f;
    if (threadIdx.x < kMatrixColumns) w.p.grad_hidden[(matrix * W + row) * W + column] = sum * unit;
}

template <class Products>
__global__ void __launch_bounds__(kSumThreads) matrices_kernel(Work w) {
    constexpr int64_t kMatrix = int64_t{Products::kWidth} * Products::kWidth / kMatrixColumns;
    for (int64_t i = blockIdx.x; i < (w.layers - 1) * kMatrix; i += gridDim.x) {
        sum_matrices<Products>(w, i);
    }
}

// ---- the launch

struct Plan {
    int64_t tiles;  // at most
    int64_t chunk_tiles, warps, slices;
    int64_t state, features, adjoints, film_sums, common, matrices, size;  // bytes: where, in all
};

constexpr int64_t kChunkBytes = int64_t{256} << 20;  // of tiles, unless these are too few warps
constexpr int64_t kWarpsOfProcessor = 16;
constexpr int64_t kTilesOfSlice = 4;  // at least

Plan make_plan(int device, int64_t count, int64_t images, int64_t width, int64_t layers,
               bool half) {
    int processors = 0;
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), kWhat);
    const int64_t warps = processors * kWarpsOfProcessor;
    const int64_t state = (layers + 1) * (width / 8) * kWarp * static_cast<int64_t>(sizeof(float4));
    const int64_t words = layers * width * kTilePoints * (half ? 4 : 8);
    const auto aligned = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
    Plan p;
    p.tiles = images == 0 ? 0 : count / kTilePoints + min_of(images, count);
    p.chunk_tiles = min_of(p.tiles, max_of(warps, kChunkBytes / (state + 2 * words)));
    p.warps = min_of(p.chunk_tiles, warps);
    const int64_t wanted = warps / max_of((layers - 1) * blocks_of_matrix(width), int64_t{1});
    p.slices = max_of(min_of(wanted, p.chunk_tiles / kTilesOfSlice), int64_t{1});
    p.state = aligned((images + 1) * static_cast<int64_t>(sizeof(int64_t)) + 4);
    p.features = p.state + aligned(p.chunk_tiles * state);
    p.adjoints = p.features + aligned(p.chunk_tiles * words);
    p.film_sums = p.adjoints + aligned(p.chunk_tiles * words);
    p.common = p.film_sums + aligned((p.warps + images) * 2 * layers * width * 4);
    p.matrices = p.common + aligned(p.warps * kCommonRows * width * 4);
    p.size = p.matrices + p.slices * (layers - 1) * width * width * 4;
    return p;
}

template <class Products>
void run(const Plan& plan, Work w, const Where& where) {
    const int64_t W = w.p.network.width;
    int processors = 0;
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, where.device), kWhat);
    const auto launch = [&](auto kernel, int64_t blocks, int threads, int shared) {
        check(launch_kernel(kernel, blocks, threads, shared, where.stream, w), kWhat);
    };
    const auto launch_sums = [&](auto kernel, int64_t blocks) {
        const int64_t most = int64_t{processors} * kSumBlocks;
        launch(kernel, min_of(blocks, most), kSumThreads, kSumThreads * 4);
    };
    const int64_t outer_warps = plan.slices * (w.layers - 1) * blocks_of_matrix(W);
    const int64_t blocks = (plan.warps + Products::kWarps - 1) / Products::kWarps;
    for (w.chunk_begin = 0; w.chunk_begin < plan.tiles; w.chunk_begin += plan.chunk_tiles) {
        launch(points_kernel<Products>, blocks, Products::kWarps * kWarp, Products::kSharedBytes);
        launch(outer_kernel<Products>, (outer_warps + 7) / 8, 256, 0);
        launch_sums(rows_kernel, rows_of_sums(w));
    }
    launch_sums(matrices_kernel<Products>, (w.layers - 1) * W * W / kMatrixColumns);
}

}  // namespace

int64_t film_siren_backward_workspace(int device, int64_t count, int64_t images, int64_t width,
                                      int64_t layers, bool half) {
    return make_plan(device, count, images, width, layers, half).size;
}

template <>
void launch(const FilmSirenBackward<float>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    const FilmSiren<float>& n = p.network;
    Work w{};
    w.p = p;
    w.trunk = n.trunk_layers;
    w.sdf_end = w.trunk + n.sdf_layers;
    w.layers = w.sdf_end + n.texture_layers;
    w.end = p.grad_texture ? w.layers : w.sdf_end;
    const bool half = n.matrices == Matrices::kHalf;
    const Plan plan = make_plan(where.device, p.count, n.images, n.width, w.layers, half);
    auto* const workspace = static_cast<unsigned char*>(p.workspace);
    w.tile_begin = reinterpret_cast<int64_t*>(workspace);
    w.largest = reinterpret_cast<unsigned*>(w.tile_begin + n.images + 1);
    w.state = reinterpret_cast<float4*>(workspace + plan.state);
    w.features = workspace + plan.features;
    w.adjoints = workspace + plan.adjoints;
    w.film_sums = reinterpret_cast<float*>(workspace + plan.film_sums);
    w.common = reinterpret_cast<float*>(workspace + plan.common);
    w.matrices = reinterpret_cast<float*>(workspace + plan.matrices);
    w.chunk_tiles = plan.chunk_tiles, w.warps = plan.warps, w.slices = plan.slices;

    const auto stream = static_cast<cudaStream_t>(where.stream);
    check(cudaMemsetAsync(w.largest, 0, sizeof(unsigned), stream), kWhat);
    const int64_t most = max_of(p.count, n.images * w.layers * n.width);
    const int64_t blocks = min_of((most + kPrepareThreads) / kPrepareThreads, int64_t{256});
    check(launch_kernel(prepare_kernel, blocks, kPrepareThreads, 0, where.stream, w), kWhat);
    if (plan.tiles == 0) {
        const auto bytes = static_cast<size_t>((w.layers - 1) * n.width * n.width) * sizeof(float);
        check(cudaMemsetAsync(p.grad_hidden, 0, bytes, stream), kWhat);
        return;
    }
    with_width(kWhat, n, where, [&](auto width) {
        constexpr int W = decltype(width)::value;
        half ? run<HalfProducts<W>>(plan, w, where) : run<FullProducts<W>>(plan, w, where);
    });
}

template <>
void launch(const FilmSirenBackward<double>&, const Where&) {
    throw std::runtime_error("film_siren_backward: CUDA kernels are for float32");
}

}  // namespace sdfgan::cuda
