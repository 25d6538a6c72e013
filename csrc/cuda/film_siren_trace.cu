// The surfaces of FiLM-SIRENs in images: one launch for each level, and nothing that waits.
//
// The blocks of a launch stay until all pixels of the level are done. Each thread that looks after
// a point of the network's tile has a ray there (core/march.h), which goes one evaluation further
// with each pass of the tile through the network; where a ray has ended, the next pixel that was
// split gives a new one. Results do not depend on which block traces a ray.
#include <cstdlib>

#include "core/trace.h"
#include "cuda/network.cuh"

namespace sdfgan::cuda {
namespace {

struct LevelTrace {
    FilmSiren<float> network;
    TraceLevel<float> level;
    const float* cameras;
    const float* jitter;  // null except for the last level
    float plane_distance;
    Mirror<float> mirror;
    const float* parent_state;  // [5, images * parent_size^2] of the level before; null: none
    const uint8_t* parent_status;
    int64_t parent_size;
    float parent_reach;
    float* state;  // [5, images * size^2] of a level that others follow, else null
    uint8_t* status;
    float* distance;  // of the last level
    float* nearest;
    LayerArrays<float> layers;       // likewise, or null
    unsigned long long* next_pixel;  // of each image
    unsigned long long* counts;
    int busy_warps, busy_lanes;  // of a block, of a warp: those that take rays
    int tail;                    // rounds in which a block's warps share the rays that are left
};

// A ray under way, in shared memory: an odd number of words, so that the lanes of a warp do not
// meet in one bank.
struct Slot {
    RayState<float> state;
    float direction[3];
    int32_t evaluations;
    uint32_t pixel;
    uint16_t image, queue;
    uint32_t queries, rows;  // of all rays that were in the slot; that its warp has evaluated
    OpenLayer<float> open;
    uint8_t layers;
    uint8_t row;  // of the tile, where its point is evaluated: kept here to save a register
};
static_assert(sizeof(Slot) / 4 % 2 == 1, "");

template <class Tile>
__host__ __device__ constexpr int slot_bytes() {
    return (Tile::kPoints * static_cast<int>(sizeof(Slot)) + 15) / 16 * 16;
}

// Puts the ray of a pixel into a slot; false where none is to be traced.
__device__ bool begin_ray(const LevelTrace& p, int64_t pixel, Slot& slot) {
    const int64_t size = p.level.size, image = pixel / (size * size);
    const int64_t row = pixel / size % size, column = pixel % size;
    Split<float> from{true, 0, 1};
    if (p.parent_state) {
        const int64_t scale = size / p.parent_size, parents = p.parent_size * p.parent_size;
        const int64_t parent = image * parents + row / scale * p.parent_size + column / scale;
        from = split_pixel(load_ray(p.parent_state, p.network.images * parents, parent, 0.f,
                                    p.parent_status[parent]),
                           p.parent_reach);
        if (!from.split) return false;
    }
    const PixelRay<float> ray = pixel_ray(p.cameras + 12 * image, column, row, size, size,
                                          p.plane_distance, p.level.radius);
    const float offset = p.level.start + (p.jitter ? p.jitter[pixel] : 0.f);
    slot.state = start_march(ray, from, offset);
    for (int axis = 0; axis < 3; ++axis) slot.direction[axis] = ray.direction[axis];
    slot.evaluations = 0;
    slot.open = Layers<float>::none();
    slot.layers = 0;
    slot.pixel = static_cast<uint32_t>(pixel);
    slot.image = static_cast<uint16_t>(image);
    return slot.state.status == kMarching;
}

// A block's queues are those of the images in turn, beginning with another one in each block, since
// the rays of one image read the same FiLM. The first after `queue` that has pixels left, or
// `images`; the same for all lanes of a warp.
__device__ uint32_t next_queue(const LevelTrace& p, uint32_t queue, uint32_t first_image,
                               uint32_t images, int64_t pixels) {
    for (++queue; queue < images; queue += 32) {
        const uint32_t mine = queue + threadIdx.x % 32;
        const volatile unsigned long long* next = p.next_pixel + (first_image + mine) % images;
        const unsigned open =
            __ballot_sync(~0u, mine < images && static_cast<int64_t>(*next) < pixels);
        if (open != 0) return queue + __ffs(open) - 1;
    }
    return images;
}

// Takes pixels from the queues until this thread, if it is `free`, has a ray or there are no
// `more`, which all lanes learn of. All lanes of a warp must call; returns whether this one has got
// a ray. The first lane's slot keeps the warp's queue.
__device__ bool take_ray(const LevelTrace& p, bool free, bool& more, Slot& slot) {
    const int64_t pixels = p.level.size * p.level.size;
    const auto images = static_cast<uint32_t>(p.network.images);
    const uint32_t first_image = blockIdx.x % images;
    const unsigned lane = threadIdx.x % 32;
    uint32_t queue = __shfl_sync(~0u, slot.queue, 0);
    bool got = false;
    while (true) {
        const bool asks = free && more && !got;
        const unsigned asking = __ballot_sync(~0u, asks);
        if (asking == 0) break;
        const int leader = __ffs(asking) - 1;
        const uint32_t image = (first_image + queue) % images;
        unsigned long long first = 0;
        if (lane == static_cast<unsigned>(leader)) {
            first =
                atomicAdd(p.next_pixel + image, static_cast<unsigned long long>(__popc(asking)));
        }
        first = __shfl_sync(~0u, first, leader);
        const int64_t pixel = static_cast<int64_t>(first) + __popc(asking & ((1u << lane) - 1));
        if (asks && pixel < pixels) got = begin_ray(p, image * pixels + pixel, slot);
        if (static_cast<int64_t>(first) + __popc(asking) >= pixels) {
            queue = next_queue(p, queue, first_image, images, pixels);
            more &= queue < images;
        }
    }
    if (lane == 0) slot.queue = queue;
    return got;
}

// One evaluation of a ray; returns whether it goes on.
__device__ bool march(const LevelTrace& p, Slot& slot, float sdf) {
    MarchRules<float> rules = p.level.rules;
    rules.slack *= 1 + slot.evaluations / p.level.patience;
    const bool last = ++slot.evaluations >= p.level.steps;
    RayState<float> ray = slot.state;
    bool goes_on;
    if (p.layers.layers) {
        const int64_t rays = p.network.images * p.level.size * p.level.size;
        const Layers<float> layers{slot.open, slot.layers, p.layers.most,
                                   p.layers.layers + slot.pixel, rays};
        goes_on = advance_or_end(ray, sdf, rules, layers, last);
    } else {
        goes_on = advance_or_end(ray, sdf, rules, NoLayers(), last);
    }
    slot.state = ray;
    return goes_on;
}

__device__ void finish(const LevelTrace& p, const Slot& slot) {
    const RayState<float> ray = slot.state;
    if (p.state) {
        store_ray(ray, p.state, p.network.images * p.level.size * p.level.size, slot.pixel);
        p.status[slot.pixel] = ray.status;
        return;
    }
    const bool hit = ray.status == kHit || ray.status >= kRefining;
    p.status[slot.pixel] = hit ? uint8_t{kHit} : ray.status;
    p.distance[slot.pixel] = hit ? ray.t : ray.nearest_t;
    p.nearest[slot.pixel] = ray.nearest;
    if (p.layers.layers) p.layers.count[slot.pixel] = slot.layers;
}

__device__ uint32_t sum_of_warp(uint32_t value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(~0u, value, lanes);
    return value;
}

template <class Network>
__global__ void __launch_bounds__(kNetworkThreads, Network::kBlocks)
    trace_kernel(LevelTrace p, Path path, int bytes) {
    using Tile = typename Network::Tile;
    static_assert(Tile::kPoints <= 256, "a row is an uint8_t");
    Tile& tile = *reinterpret_cast<Tile*>(shared_memory());
    Slot* const slots = reinterpret_cast<Slot*>(shared_memory() + tile_bytes<Tile>());
    Network network(p.network, path, shared_memory() + tile_bytes<Tile>() + slot_bytes<Tile>(),
                    bytes);
    const int own = Network::own_point();
    Slot& slot = slots[own >= 0 ? own : 0];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    bool has = false, more = own >= 0 && warp < p.busy_warps && lane < p.busy_lanes;
    if (own >= 0) {
        slot.queries = slot.rows = slot.queue = 0;
        // Rows without a ray are evaluated too.
        for (int axis = 0; axis < 3; ++axis) tile.x[own][axis] = 0;
        tile.film[own] = 0;
    }
    while (true) {
        has |= take_ray(p, !has, more, slot);
        const int row = network.place(has, more, p.tail);
        if (has) {
            slot.row = static_cast<uint8_t>(row);
            const float* camera = p.cameras + 12 * slot.image;
            for (int axis = 0; axis < 3; ++axis) {
                tile.x[row][axis] = camera[4 * axis + 3] + slot.state.t * slot.direction[axis];
            }
            if (p.mirror.softness > 0) mirror_point(p.mirror, tile.x[row][0], tile.x[row][2]);
            tile.film[row] = static_cast<uint32_t>(slot.image * film_size(p.network));
        }
        if (!network.any(has)) break;
        const int rows = network.evaluate(tile, has);
        if (own >= 0) slot.rows += rows;
        if (has) {
            ++slot.queries;
            const float radius = prior_radius(p.network, tile.x[slot.row]);
            has = march(p, slot, tile.value[0][slot.row] + radius + p.network.constants[1]);
            if (!has) finish(p, slot);
        }
    }
    const uint32_t queries = sum_of_warp(own >= 0 ? slot.queries : 0);
    if (threadIdx.x % 32 == 0 && own >= 0 && slot.rows > 0) {
        atomicAdd(p.counts, static_cast<unsigned long long>(queries));
        atomicAdd(p.counts + 1, static_cast<unsigned long long>(slot.rows));
    }
}

// Switches for measurements, read at each launch:
//   SDFGAN_TRACE_WARPS  most warps of a block that take rays
//   SDFGAN_TRACE_TAIL   most rounds in which a block's warps share the rays that are left; 0: never
//   SDFGAN_TRACE_RING   0: warps keep step in the ring of weights (half_network.cuh)
constexpr int64_t kTail = 3;

int64_t from_environment(const char* name, int64_t least, int64_t most, int64_t otherwise) {
    const char* text = std::getenv(name);
    if (!text || !*text) return otherwise;
    char* end;
    const int64_t number = std::strtol(text, &end, 10);
    if (*end || number < least || number > most) {
        throw std::runtime_error(std::string(name) + " must be " + std::to_string(least) + " to " +
                                 std::to_string(most) + ", got '" + text + "'");
    }
    return number;
}

// The workspace: a queue for each image of each level, then the status of the levels before the
// last, and their state.
struct Workspace {
    int64_t status, state, size;  // bytes: where those begin, and in all
};

Workspace lay_out(int64_t images, const std::vector<int64_t>& sizes) {
    int64_t rays = 0;
    for (size_t i = 0; i + 1 < sizes.size(); ++i) rays += images * sizes[i] * sizes[i];
    Workspace w;
    w.status = images * static_cast<int64_t>(sizes.size() * sizeof(unsigned long long));
    w.state = w.status + (rays + 15) / 16 * 16;
    w.size = w.state + 5 * rays * static_cast<int64_t>(sizeof(float));
    return w;
}

}  // namespace

int64_t film_siren_trace_workspace(int, int64_t images, const std::vector<int64_t>& sizes) {
    return lay_out(images, sizes).size;
}

template <>
void launch(const FilmSirenTrace<float>& p, const Where& where) {
    constexpr const char* kWhat = "film_siren_trace";
    const DeviceGuard guard(where.device);
    if (p.network.images == 0) return;
    std::vector<int64_t> sizes;
    for (const auto& level : p.levels) sizes.push_back(level.size);
    const Workspace w = lay_out(p.network.images, sizes);
    const auto stream = static_cast<cudaStream_t>(where.stream);
    auto* const workspace = static_cast<unsigned char*>(p.workspace);
    check(cudaMemsetAsync(workspace, 0, w.status, stream), kWhat);
    check(cudaMemsetAsync(workspace + w.status, kUntraced, w.state - w.status, stream), kWhat);

    int processors = 0;
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, where.device), kWhat);
    LevelTrace level{};
    level.network = p.network;
    level.cameras = p.cameras;
    level.plane_distance = p.plane_distance;
    level.mirror = p.mirror;
    level.counts = reinterpret_cast<unsigned long long*>(p.counts);
    level.next_pixel = reinterpret_cast<unsigned long long*>(workspace);
    auto* status = workspace + w.status;
    auto* state = reinterpret_cast<float*>(workspace + w.state);
    for (int64_t i = 0; i < p.levels.size; ++i, level.next_pixel += p.network.images) {
        const bool last = i + 1 == p.levels.size;
        level.level = p.levels[i];
        const int64_t rays = p.network.images * level.level.size * level.level.size;
        if (rays > UINT32_MAX || p.network.images > UINT16_MAX) {
            throw std::runtime_error("film_siren_trace: too many pixels");
        }
        level.jitter = last ? p.jitter : nullptr;
        level.state = last ? nullptr : state;
        level.status = last ? p.status : status;
        level.distance = p.distance;
        level.nearest = p.nearest;
        level.layers = last ? p.layers : LayerArrays<float>{};
        const auto trace = [&](auto type) {
            using Network = typename decltype(type)::type;
            using Tile = typename Network::Tile;
            // Few rays are spread over all multiprocessors, a warp or more on each, and there over
            // all warps, if those need but 16 rows.
            const int64_t share = (rays + processors - 1) / processors;
            const int64_t most_warps =
                min_of<int64_t>(Tile::kPoints / Network::kWarpPoints,
                                from_environment("SDFGAN_TRACE_WARPS", 1, kWarps, kWarps));
            const int64_t lanes =
                share <= 16 * most_warps ? min_of(16, Network::kWarpPoints) : Network::kWarpPoints;
            const int64_t warps = min_of((share + lanes - 1) / lanes, most_warps);
            const int64_t of_block = warps * lanes;
            level.busy_warps = static_cast<int>(warps);
            level.busy_lanes = static_cast<int>(lanes);
            level.tail = static_cast<int>(from_environment("SDFGAN_TRACE_TAIL", 0, 8, kTail));
            launch_network<Network>(kWhat, trace_kernel<Network>, level, sdf_path(p.network),
                                    slot_bytes<Tile>(), (rays + of_block - 1) / of_block, where);
        };
        with_network<false, 1>(kWhat, p.network, where, trace);
        level.parent_state = state;
        level.parent_status = status;
        level.parent_size = level.level.size;
        level.parent_reach = level.level.reach;
        state += 5 * rays;
        status += rays;
    }
}

template <>
void launch(const FilmSirenTrace<double>&, const Where&) {
    throw std::runtime_error("film_siren_trace: CUDA kernels are for float32");
}

}  // namespace sdfgan::cuda
