// FiLM-SIRENs on CUDA: the rows of a block go through the layers together. Chooses the network's
// class for a width and a precision, and launches kernels that use it.
#pragma once

#include "cuda/full_network.cuh"
#include "cuda/half_network.cuh"

namespace sdfgan::cuda {

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

// Calls f(integral_constant) with the network's width, if the device can run it.
template <class F>
void with_width(const char* what, const FilmSiren<float>& network, const Where& where, F&& f) {
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, where.device), what);
    if (network.matrices == Matrices::kHalf && major < 8) {
        throw std::runtime_error(std::string(what) + ": fp16 needs compute capability 8.0");
    }
    if (network.images * film_size(network) > UINT32_MAX) {
        throw std::runtime_error(std::string(what) + ": too many images");
    }
    if (network.width == 64) return f(std::integral_constant<int, 64>{});
    if (network.width == 128) return f(std::integral_constant<int, 128>{});
    if (network.width == 256) return f(std::integral_constant<int, 256>{});
    throw std::runtime_error(std::string(what) + ": the width must be 64, 128 or 256");
}

// Calls f(Type<...>) with the class for the network's width and precision.
template <bool kTangents, int kHeads, class F>
void with_network(const char* what, const FilmSiren<float>& network, const Where& where, F&& f) {
    with_width(what, network, where, [&](auto width) {
        constexpr int W = decltype(width)::value;
        if (network.matrices == Matrices::kHalf) {
            f(Type<HalfNetwork<W, kTangents, kHeads>>{});
        } else {
            f(Type<FullNetwork<W, kTangents, kHeads>>{});
        }
    });
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
