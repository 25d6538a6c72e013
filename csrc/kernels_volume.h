// The kernels for volumes; part of kernels.h.
#pragma once

#include <cstdint>

namespace sdfgan {

struct Where;

// Where the samples of R rays are: ray r has [offsets[r], offsets[r+1]), or `samples` of them each.
struct RaySamples {
    const int64_t* offsets;  // [rays + 1], or null
    int64_t rays;
    int64_t samples;  // of each ray without offsets, else of all together
};

// Emission and absorption along rays; see core/composite.h. N = all samples.
template <class T>
struct Composite {
    RaySamples at;
    const T* densities;  // [N]; opacities where deltas is null
    const T* deltas;     // [N] or null
    const T* colors;     // [N, channels]
    const T* distances;  // [N] or null
    T* weights;          // [N]
    T* opacity;          // [rays]
    T* out;              // [rays, channels]
    T* depth;            // [rays], or null with distances
    int64_t channels;
};

// Its gradient. Any of the gradients that come, and the last three that go, may be null.
template <class T>
struct CompositeBackward {
    RaySamples at;
    const T* densities;
    const T* deltas;
    const T* colors;
    const T* distances;
    const T* weights;
    const T* grad_weights;
    const T* grad_opacity;
    const T* grad_out;
    const T* grad_depth;
    T* grad_densities;
    T* grad_deltas;
    T* grad_colors;
    T* grad_distances;
    int64_t channels;
};

// out[i] = sum of the weights of the bins of the other histogram that overlap bin i: its own
// transpose when the histograms change places; see core/histogram.h.
template <class T>
struct OverlapSums {
    const T* edges;    // [rays, bins + 1] ascending
    const T* others;   // [rays, other_bins + 1] ascending
    const T* weights;  // [rays, other_bins]
    T* out;            // [rays, bins]
    int64_t rays, bins, other_bins;
};

// out = A weights, with weights . A weights / 2 the distortion loss; see core/histogram.h.
template <class T>
struct Distortion {
    const T* edges;    // [rays, bins + 1] ascending
    const T* weights;  // [rays, bins]
    T* out;            // [rays, bins]
    int64_t rays, bins;
};

// Rays and colours of pixels of many photographs; see core/pixels.h.
template <class T>
struct SamplePixels {
    const T* cameras;       // [views, 3, 4] camera to world
    const T* intrinsics;    // [views, 4] fx, fy, cx, cy
    const T* distortion;    // [views, terms] k1, k2, p1, p2, k3, k4, k5, k6, a; or null
    const bool* fisheye;    // [views]; or null
    const int64_t* widths;  // [views]
    const int64_t* starts;  // [views + 1] ascending: the first pixel of each view, then of none
    const int64_t* pixels;  // [count]
    const void* images;     // [starts[views], channels] of uint8_t (`bytes`) or T; or null
    const bool* mask;       // [masked] pixels that have a ray; or null: all
    T* origins;             // [count, 3]
    T* directions;          // [count, 3]
    T* radii;               // [count]
    T* colors;              // [count, channels]
    int64_t count, views, channels, stored;  // pixels in images
    int64_t terms, masked;
    bool bytes;
};

// Means and covariances of pieces of cones or cylinders; see core/integrated.h.
template <class T>
struct FrustumGaussians {
    const T* origins;     // [rays, 3]
    const T* directions;  // [rays, 3] unit
    const T* edges;       // [rays, samples + 1]
    const T* radii;       // [rays]
    T* means;             // [rays, samples, 3]
    T* covariances;       // [rays, samples, 3] or, if full, [rays, samples, 3, 3]
    int64_t rays, samples;
    bool cylinder, full;
};

// exp(-4^k variance / 2) times the sine and cosine of 2^k mean; see core/integrated.h.
template <class T>
struct IntegratedPositionalEncoding {
    const T* means;      // [points, dims]
    const T* variances;  // [points, dims]
    T* out;              // [points, 2 * octaves * dims]
    int64_t points, dims;
    int octaves;
};

// Spherical harmonics of degrees 1, 2, 4, ... damped by roughness; see core/harmonics.h. With
// grad_out it writes the gradients, otherwise out.
template <class T>
struct IntegratedDirectionalEncoding {
    const T* directions;  // [count, 3]
    const T* roughness;   // [count]
    const T* table;       // see core/harmonics.h
    T* out;               // [count, width]
    const T* grad_out;    // [count, width] or null
    T* grad_directions;   // [count, 3]
    T* grad_roughness;    // [count]
    int64_t count, width;
    int levels;
};

// Rays that step through a grid of cells; see core/grid_march.h.
template <class T>
struct GridMarch {
    const T* origins;      // [rays, 3]
    const T* directions;   // [rays, 3] unit
    const T* near;         // [rays]
    const T* far;          // [rays]
    const T* jitter;       // [rays] added to the first step, in steps
    const bool* occupied;  // [resolution^3] cells of [-1, 1]^3, or of contracted space
    const int32_t* first;  // [rays] the step at which each begins; null: its first
    int64_t rays, resolution;
    T step;  // length of a step
    T even;  // distance from which on steps grow with it in contracted space; else infinite
};

// How many steps of each ray lie in occupied cells, `most` at most.
template <class T>
struct MarchCount {
    GridMarch<T> march;
    int64_t* counts;  // [rays + 1]: 0, then those of the rays
    int32_t* next;    // [rays] the step after the last one that was counted or found empty
    int64_t most;
};

// These steps themselves: as many for each ray as `at` has.
template <class T>
struct MarchSamples {
    GridMarch<T> march;
    RaySamples at;
    T* points;      // [N, 3]
    T* directions;  // [N, 3] of the rays
    T* distances;   // [N]
    T* deltas;      // [N] lengths of the steps
};

// Which of them light reaches.
template <class T>
struct MarchReached {
    RaySamples at;
    const T* densities;  // [N]
    const T* deltas;     // [N]
    T* depth;            // [rays] updated: the optical depth up to the last sample
    int64_t* reached;    // [rays + 1] updated: 0, then how many samples of each ray light reaches
    int32_t* next;       // [rays] updated: beyond all steps where no light is left
    T limit;             // optical depth at which none is
};

#define SDFGAN_VOLUME_KERNELS(X, T)    \
    X(Composite<T>)                    \
    X(CompositeBackward<T>)            \
    X(OverlapSums<T>)                  \
    X(Distortion<T>)                   \
    X(SamplePixels<T>)                 \
    X(MarchCount<T>)                   \
    X(MarchSamples<T>)                 \
    X(MarchReached<T>)                 \
    X(FrustumGaussians<T>)             \
    X(IntegratedPositionalEncoding<T>) \
    X(IntegratedDirectionalEncoding<T>)

// A launcher of each on each device.
#define SDFGAN_DECLARE(Parameters) void launch(const Parameters&, const Where&);
namespace cpu {
SDFGAN_VOLUME_KERNELS(SDFGAN_DECLARE, float)
SDFGAN_VOLUME_KERNELS(SDFGAN_DECLARE, double)
}  // namespace cpu
namespace cuda {
SDFGAN_VOLUME_KERNELS(SDFGAN_DECLARE, float)
SDFGAN_VOLUME_KERNELS(SDFGAN_DECLARE, double)
}  // namespace cuda
#undef SDFGAN_DECLARE

}  // namespace sdfgan
