// Compositing by a group of lanes to a ray (core/composite.h has the formulas): neighbouring lanes
// have neighbouring samples, so memory is read in whole lines; light passes on by scans over the
// lanes. A group takes a block of kLanes * kEach samples at a time; a lane has those at
// first + lane + k kLanes.
#include <type_traits>

#include "core/composite.h"
#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace sdfgan::cuda {
namespace {

constexpr int kCompositeThreads = 128;

// The samples of one lane in a block. Behind the end of a ray there is nothing: its density, and
// so its opacity, is 0.
template <int kLanes, int kEach, class T>
struct LaneSamples {
    static constexpr int kBlock = kLanes * kEach;
    T density[kEach], delta[kEach], alpha[kEach];

    template <class P>
    __device__ __forceinline__ void load(const P& p, int64_t sample, int left) {
#pragma unroll
        for (int k = 0; k < kEach; ++k) density[k] = value(p.densities + sample, left, k);
        if (p.deltas) {
#pragma unroll
            for (int k = 0; k < kEach; ++k) delta[k] = value(p.deltas + sample, left, k);
        }
    }

    __device__ __forceinline__ void find_opacities(bool densities_are_opacities) {
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
            alpha[k] = densities_are_opacities ? density[k] : opacity_of(density[k], delta[k]);
        }
    }

    // reaches[k] of what is `passes` at the start of the block reaches the samples; `passes`
    // becomes what is left at the end.
    __device__ __forceinline__ void let_pass(T& passes, T (&reaches)[kEach]) const {
        T scanned[kEach];
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
            scanned[k] =
                scan_of_lanes<kLanes>(1 - alpha[k], [](T before, T own) { return before * own; });
        }
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
            reaches[k] = passes * lane_before<kLanes>(scanned[k], T(1));
            passes *= __shfl_sync(kAllLanes, scanned[k], kLanes - 1, kLanes);
        }
    }

    // How many samples are left from the lane's first of a block on; more than the block's count as
    // the block's.
    static __device__ __forceinline__ int left_of(int64_t sample, int64_t end) {
        return static_cast<int>(min_of<int64_t>(max_of<int64_t>(end - sample, 0), kBlock));
    }

    // Of the lane's k-th sample, or 0 behind the end of the ray; `values` begin at its first.
    static __device__ __forceinline__ T value(const T* values, int left, int k,
                                              int64_t channels = 1) {
        return k * kLanes < left ? values[k * kLanes * channels] : T(0);
    }
};

// The samples of a ray, and the blocks of kBlock samples that the longest ray of the warp needs.
template <int kBlock>
__device__ __forceinline__ int64_t blocks_of_ray(const RaySamples& at, int64_t ray, int64_t& begin,
                                                 int64_t& end) {
    begin = end = 0;
    if (ray < at.rays) range_of_ray(at, ray, begin, end);
    const int64_t longest = at.offsets ? max_of_warp(end - begin) : at.samples;
    return (longest + kBlock - 1) / kBlock;
}

// kChannels: their number where it is known to the compiler, which then keeps them in registers;
// else 0.
template <int kLanes, int kEach, int kChannels, class T>
__global__ void __launch_bounds__(kCompositeThreads) composite_kernel(Composite<T> p) {
    using Samples = LaneSamples<kLanes, kEach, T>;
    for_rays<kLanes>(p.at.rays, [&](int64_t ray, int lane) {
        int64_t begin, end;
        const int64_t blocks = blocks_of_ray<Samples::kBlock>(p.at, ray, begin, end);
        const bool writes = ray < p.at.rays && lane == 0;
        T* const out = p.out + ray * p.channels;
        T passes = 1, opacity = 0, depth = 0, sums[kChannels ? kChannels : 1] = {};
        if (!kChannels && writes) {
            for (int64_t c = 0; c < p.channels; ++c) out[c] = 0;
        }
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t sample = begin + block * Samples::kBlock + lane;
            const int left = Samples::left_of(sample, end);
            Samples samples;
            T distance[kEach] = {}, color[kEach][kChannels ? kChannels : 1], reaches[kEach];
            samples.load(p, sample, left);
            if (p.distances) {
#pragma unroll
                for (int k = 0; k < kEach; ++k) {
                    distance[k] = Samples::value(p.distances + sample, left, k);
                }
            }
#pragma unroll
            for (int k = 0; k < kEach; ++k) {
#pragma unroll
                for (int c = 0; c < kChannels; ++c) {
                    color[k][c] =
                        Samples::value(p.colors + sample * kChannels + c, left, k, kChannels);
                }
            }
            samples.find_opacities(!p.deltas);
            samples.let_pass(passes, reaches);
            T weight[kEach];
#pragma unroll
            for (int k = 0; k < kEach; ++k) {
                weight[k] = samples.alpha[k] * reaches[k];
                if (k * kLanes < left) p.weights[sample + k * kLanes] = weight[k];
                opacity += weight[k];
                depth += weight[k] * distance[k];
#pragma unroll
                for (int c = 0; c < kChannels; ++c) sums[c] += weight[k] * color[k][c];
            }
            for (int64_t c = 0; !kChannels && c < p.channels; ++c) {
                T sum = 0;
#pragma unroll
                for (int k = 0; k < kEach; ++k) {
                    sum += weight[k] *
                           Samples::value(p.colors + sample * p.channels + c, left, k, p.channels);
                }
                sum = sum_of_lanes<kLanes>(sum);
                if (writes) out[c] += sum;
            }
        }
        opacity = sum_of_lanes<kLanes>(opacity);
        if (writes) p.opacity[ray] = opacity;
        if (p.depth) {
            depth = sum_of_lanes<kLanes>(depth);
            if (writes) p.depth[ray] = depth;
        }
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
            const T sum = sum_of_lanes<kLanes>(sums[c]);
            if (writes) out[c] = sum;
        }
    });
}

// First the blocks in order, for what passes them; then from the last, for what comes from behind.
// What reaches a block waits in the place of its first gradient, which the same lane writes later.
template <int kLanes, int kEach, int kChannels, class T>
__global__ void __launch_bounds__(kCompositeThreads)
    composite_backward_kernel(CompositeBackward<T> p) {
    using Samples = LaneSamples<kLanes, kEach, T>;
    for_rays<kLanes>(p.at.rays, [&](int64_t ray, int lane) {
        int64_t begin, end;
        const int64_t blocks = blocks_of_ray<Samples::kBlock>(p.at, ray, begin, end);
        const bool real = ray < p.at.rays;
        const int64_t channels = kChannels ? kChannels : p.channels;
        const T grad_opacity = p.grad_opacity && real ? p.grad_opacity[ray] : T(0);
        const T grad_depth = p.grad_depth && real ? p.grad_depth[ray] : T(0);
        const T* const grad_out = p.grad_out && real ? p.grad_out + ray * channels : nullptr;
        T grad_color[kChannels ? kChannels : 1] = {};
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
            if (grad_out) grad_color[c] = grad_out[c];
        }
        T passes = 1;
        for (int64_t block = 0; blocks > 1 && block < blocks; ++block) {
            const int64_t sample = begin + block * Samples::kBlock + lane;
            const int left = Samples::left_of(sample, end);
            Samples samples;
            T reaches[kEach];
            samples.load(p, sample, left);
            samples.find_opacities(!p.deltas);
            if (lane == 0 && left > 0) p.grad_densities[sample] = passes;
            samples.let_pass(passes, reaches);
        }
        T behind = 0;
        for (int64_t block = blocks - 1; block >= 0; --block) {
            const int64_t first = begin + block * Samples::kBlock, sample = first + lane;
            const int left = Samples::left_of(sample, end);
            Samples samples;
            T g[kEach], reaches[kEach];
            samples.load(p, sample, left);
#pragma unroll
            for (int k = 0; k < kEach; ++k) g[k] = grad_opacity;
            if (p.grad_weights) {
#pragma unroll
                for (int k = 0; k < kEach; ++k) {
                    g[k] += Samples::value(p.grad_weights + sample, left, k);
                }
            }
            if (p.grad_depth) {
#pragma unroll
                for (int k = 0; k < kEach; ++k) {
                    g[k] += grad_depth * Samples::value(p.distances + sample, left, k);
                }
            }
            if (p.grad_out) {
#pragma unroll
                for (int k = 0; k < kEach; ++k) {
#pragma unroll
                    for (int c = 0; c < kChannels; ++c) {
                        g[k] += grad_color[c] * Samples::value(p.colors + sample * kChannels + c,
                                                               left, k, kChannels);
                    }
                    for (int64_t c = 0; !kChannels && grad_out && c < channels; ++c) {
                        g[k] += grad_out[c] *
                                Samples::value(p.colors + sample * channels + c, left, k, channels);
                    }
                }
            }
            samples.find_opacities(!p.deltas);
            passes = 1;
            if (blocks > 1) {
                if (lane == 0 && left > 0) passes = p.grad_densities[sample];
                passes = __shfl_sync(kAllLanes, passes, 0, kLanes);
            }
            samples.let_pass(passes, reaches);
            Linear<T> light[kEach];  // from behind the last lane's sample to in front of one's own
#pragma unroll
            for (int k = 0; k < kEach; ++k) {
                const T alpha = samples.alpha[k];
                light[k] = compose_from_last_lane<kLanes>(
                    Linear<T>{1 - alpha, k * kLanes < left ? alpha * g[k] : T(0)});
            }
#pragma unroll
            for (int k = kEach - 1; k >= 0; --k) {
                const Linear<T> next = shift_down<kLanes>(light[k], 1);
                const T from_behind = lane == kLanes - 1 ? behind : next(behind);
                const T own = light[k](behind);
                behind = __shfl_sync(kAllLanes, own, 0, kLanes);
                g[k] = reaches[k] * (g[k] - from_behind);
            }
#pragma unroll
            for (int k = 0; k < kEach; ++k) {
                if (k * kLanes >= left) continue;
                const int64_t i = sample + k * kLanes;
                if (!p.deltas) {
                    p.grad_densities[i] = g[k];
                    continue;
                }
                const T delta = samples.delta[k], slope = (1 - samples.alpha[k]) * g[k];
                p.grad_densities[i] = (slope == 0) | (delta - delta != 0) ? T(0) : slope * delta;
                if (p.grad_deltas) p.grad_deltas[i] = slope * samples.density[k];
            }
            const int64_t stop = min_of(end, first + Samples::kBlock);
            if (p.grad_distances) {
                for (int64_t i = sample; i < stop; i += kLanes) {
                    p.grad_distances[i] = p.weights[i] * grad_depth;
                }
            }
            if (p.grad_colors) {
                // In the order of memory, not of samples, to write whole lines.
                T* const target = p.grad_colors + first * channels;
                const T* const weights = p.weights + first;
                const int count = static_cast<int>((stop - first) * channels);
#pragma unroll 4
                for (int e = lane; e < count; e += kLanes) {
                    const int of_block = e / static_cast<int>(channels);
                    const int c = e - of_block * static_cast<int>(channels);
                    target[e] =
                        grad_out ? read_only(weights + of_block) * read_only(grad_out + c) : T(0);
                }
            }
        }
    });
}

// Calls f(lanes, each, channels), each a std::integral_constant. A block of samples is not much
// longer than a ray, and a lane has some of them, whose scans overlap. In double, which is there
// for checks, no number of channels is known.
template <class T, class F>
void with_composite_shape(const RaySamples& at, int64_t channels, const F& f) {
    const auto with_channels = [&](auto lanes, auto each) {
        if constexpr (std::is_same_v<T, float>) {
            if (channels == 3) return f(lanes, each, std::integral_constant<int, 3>{});
            if (channels == 4) return f(lanes, each, std::integral_constant<int, 4>{});
            if (channels == 6) return f(lanes, each, std::integral_constant<int, 6>{});
        }
        f(lanes, each, std::integral_constant<int, 0>{});
    };
    const int64_t mean = at.offsets ? at.samples / max_of<int64_t>(at.rays, 1) : at.samples;
    using One = std::integral_constant<int, 1>;
    using Two = std::integral_constant<int, 2>;
    using Four = std::integral_constant<int, 4>;
    if (mean <= 8) return with_channels(std::integral_constant<int, 8>{}, One{});
    if (mean <= 40) return with_channels(std::integral_constant<int, 16>{}, Two{});
    with_channels(std::integral_constant<int, 32>{}, Four{});
}

}  // namespace

template <class T>
void launch(const Composite<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    if (p.at.rays == 0) return;
    with_composite_shape<T>(p.at, p.channels, [&](auto lanes, auto each, auto channels) {
        constexpr int kLanes = decltype(lanes)::value;
        check(launch_kernel(
                  composite_kernel<kLanes, decltype(each)::value, decltype(channels)::value, T>,
                  blocks_of_rays<kLanes>(p.at.rays, kCompositeThreads), kCompositeThreads, 0,
                  where.stream, p),
              "composite");
    });
}

template <class T>
void launch(const CompositeBackward<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    if (p.at.rays == 0) return;
    with_composite_shape<T>(p.at, p.channels, [&](auto lanes, auto each, auto channels) {
        constexpr int kLanes = decltype(lanes)::value;
        check(launch_kernel(composite_backward_kernel<kLanes, decltype(each)::value,
                                                      decltype(channels)::value, T>,
                            blocks_of_rays<kLanes>(p.at.rays, kCompositeThreads), kCompositeThreads,
                            0, where.stream, p),
              "composite");
    });
}

SDFGAN_INSTANTIATE_LAUNCH(Composite)
SDFGAN_INSTANTIATE_LAUNCH(CompositeBackward)

}  // namespace sdfgan::cuda
