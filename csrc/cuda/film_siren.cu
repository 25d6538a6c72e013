// FiLM-SIRENs at many points; see cuda/network.cuh.
#include "cuda/network.cuh"

namespace sdfgan::cuda {
namespace {

// With one head the sdf, and its gradient if kTangents; with three the texture.
template <class Network, bool kTangents, int kHeads>
__global__ void __launch_bounds__(kNetworkThreads, Network::kBlocks)
    sample_kernel(FilmSirenSample<float> p, Path path, int bytes) {
    using Tile = typename Network::Tile;
    Tile& tile = *reinterpret_cast<Tile*>(shared_memory());
    Network network(p.network, path, shared_memory() + tile_bytes<Tile>(), bytes);
    const int own = Network::own_point();
    for (int64_t begin = int64_t{blockIdx.x} * Tile::kPoints; begin < p.count;
         begin += int64_t{gridDim.x} * Tile::kPoints) {
        const int64_t point = begin + own;
        const bool mine = own >= 0 && point < p.count;
        const int64_t image = mine ? p.image[point] : 0;
        const bool valid = image >= 0 && image < p.network.images;
        if (own >= 0) {
            tile.film[own] = static_cast<uint32_t>(valid ? image * film_size(p.network) : 0);
            for (int axis = 0; axis < 3; ++axis) {
                tile.x[own][axis] = mine ? p.points[3 * point + axis] : 0;
            }
        }
        network.any(mine);
        network.evaluate(tile, mine);
        if (!mine) continue;
        if constexpr (kHeads == 1) {
            constexpr int kRows = Tile::kOfPoint;
            const float radius = prior_radius(p.network, tile.x[own]);
            const float sdf = tile.value[0][kRows * own] + radius + p.network.constants[1];
            p.sdf[point] = valid ? sdf : NAN;
            if constexpr (kTangents) {
                for (int axis = 0; axis < 3; ++axis) {
                    const float slope =
                        tile.value[0][kRows * own + 1 + axis] + tile.x[own][axis] / radius;
                    p.gradient[3 * point + axis] = valid ? slope : NAN;
                }
            }
        } else {
            for (int i = 0; i < 3; ++i) {
                p.texture[3 * point + i] = valid ? tile.value[i][own] : NAN;
            }
        }
    }
}

struct NoImage {
    FilmSirenSample<float> p;
    __device__ void operator()(int64_t i) const {
        p.sdf[i] = NAN;
        for (int axis = 0; axis < 3; ++axis) {
            if (p.gradient) p.gradient[3 * i + axis] = NAN;
            if (p.texture) p.texture[3 * i + axis] = NAN;
        }
    }
};

template <bool kTangents, int kHeads>
void launch_sample(const FilmSirenSample<float>& p, const Path& path, const Where& where) {
    with_network<kTangents, kHeads>("film_siren", p.network, where, [&](auto type) {
        using Network = typename decltype(type)::type;
        constexpr int kPoints = Network::Tile::kPoints;
        launch_network<Network>("film_siren", sample_kernel<Network, kTangents, kHeads>, p, path, 0,
                                (p.count + kPoints - 1) / kPoints, where);
    });
}

}  // namespace

template <>
void launch(const FilmSirenSample<float>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    if (p.count == 0) return;
    if (p.network.images == 0) {  // there is no FiLM to read
        for_each("film_siren", p.count, where, NoImage{p});
        return;
    }
    if (p.gradient) {
        launch_sample<true, 1>(p, sdf_path(p.network), where);
    } else {
        launch_sample<false, 1>(p, sdf_path(p.network), where);
    }
    if (p.texture) launch_sample<false, 3>(p, texture_path(p.network), where);
}

template <>
void launch(const FilmSirenSample<double>&, const Where&) {
    throw std::runtime_error("film_siren: CUDA kernels are for float32");
}

}  // namespace sdfgan::cuda
