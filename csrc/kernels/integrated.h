// Encodings of cones and of lobes; core/integrated.h and core/harmonics.h have the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

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

    SDFGAN_FIELDS(origins, directions, edges, radii, means, covariances, rays, samples, cylinder,
                  full)
};

// exp(-4^k variance / 2) times the sine and cosine of 2^k mean; see core/integrated.h.
template <class T>
struct IntegratedPositionalEncoding {
    const T* means;      // [points, dims]
    const T* variances;  // [points, dims]
    T* out;              // [points, 2 * octaves * dims]
    int64_t points, dims;
    int octaves;

    SDFGAN_FIELDS(means, variances, out, points, dims, octaves)
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

    SDFGAN_FIELDS(directions, roughness, table, out, grad_out, grad_directions, grad_roughness,
                  count, width, levels)
};

}  // namespace sdfgan
