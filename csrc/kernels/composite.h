// Emission and absorption along rays; core/composite.h has the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"
#include "kernels/samples.h"

namespace sdfgan {

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

    SDFGAN_FIELDS(at, densities, deltas, colors, distances, weights, opacity, out, depth, channels)
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

    SDFGAN_FIELDS(at, densities, deltas, colors, distances, weights, grad_weights, grad_opacity,
                  grad_out, grad_depth, grad_densities, grad_deltas, grad_colors, grad_distances,
                  channels)
};

}  // namespace sdfgan
