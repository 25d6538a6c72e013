// FiLM-SIRENs at points and in images.
#pragma once

#include <cstdint>

#include "kernels/fields.h"
#include "kernels/trace.h"

namespace sdfgan {

enum class Matrices { kFull, kBf16, kHalf };  // of T; of bfloat16; of fp16

// A FiLM-SIREN with a ball as prior (sdfgan/fields/film_siren.py): layers sin(scale (W x) + shift),
// first the trunk, then the branch of the sdf, then that of the texture, both fed by the trunk.
//   sdf = sdf_head . features + sqrt(|x|^2 + constants[0]) + constants[1]
// sdfgan.ops.pack_matrices lays out the matrices between layers for each device and precision. On a
// CPU the width is a multiple of 16; on CUDA it is 64, 128 or 256, and T is float.
template <class T>
struct FilmSiren {
    const T* first;          // [width, 3]
    const void* hidden;      // [layers - 1, width, width], packed
    const void* transposed;  // the transposed matrices, packed alike, for the gradient
    const T* sdf_head;       // [width]
    const T* texture_head;   // [3, width]
    const T* constants;      // [2]
    const T* scale;          // [images, layers, width]
    const T* shift;          // [images, layers, width]
    const T* film;           // [images, layers, width / 2, 4]: scale, scale, shift, shift of two
                             // outputs; kHalf only
    int64_t images;
    int64_t width;
    int trunk_layers, sdf_layers, texture_layers;
    Matrices matrices;

    SDFGAN_FIELDS(first, hidden, transposed, sdf_head, texture_head, constants, scale, shift, film,
                  images, width, trunk_layers, sdf_layers, texture_layers, matrices)
};

// A FiLM-SIREN at many points. texture_layers may be 0.
template <class T>
struct FilmSirenSample {
    FilmSiren<T> network;
    const T* points;       // [count, 3]
    const int64_t* image;  // [count]; points of no image give NaN
    T* sdf;                // [count]
    T* gradient;           // [count, 3], or null
    T* texture;            // [count, 3] texture_head . features, or null
    int64_t count;

    SDFGAN_FIELDS(network, points, image, sdf, gradient, texture, count)
};

// The gradient of a loss by all that the answers of a FilmSirenSample depend on, from its gradient
// by these answers; on a CPU with matrices that are kFull. Images may come in any order.
template <class T>
struct FilmSirenBackward {
    FilmSiren<T> network;
    const T* points;         // [count, 3]
    const int64_t* image;    // [count]; points of no image have NaN as gradient and add nothing
    const T* grad_sdf;       // [count], or null: the loss does not depend on it
    const T* grad_gradient;  // [count, 3], or null
    const T* grad_texture;   // [count, 3], or null
    T* grad_points;          // [count, 3]
    T* grad_first;           // these and the following as in `network`
    T* grad_hidden;          // packed as `hidden`; on CUDA [layers - 1, outputs, inputs]
    T* grad_sdf_head;
    T* grad_texture_head;
    T* grad_constants;
    T* grad_scale;
    T* grad_shift;
    const int64_t* order;  // [count] points by image, those of none last; CUDA only
    const int64_t* begin;  // [images + 1] where each image's begin in `order`; CUDA only
    void* workspace;       // film_siren_backward_workspace() bytes; CUDA only
    int64_t count;

    SDFGAN_FIELDS(network, points, image, grad_sdf, grad_gradient, grad_texture, grad_points,
                  grad_first, grad_hidden, grad_sdf_head, grad_texture_head, grad_constants,
                  grad_scale, grad_shift, order, begin, workspace, count)
};

// One resolution of FilmSirenTrace.
template <class T>
struct TraceLevel {
    int64_t size;   // pixels along a side; a multiple of the level before
    int64_t steps;  // most evaluations of a ray
    MarchRules<T> rules;
    T radius;    // of the ball that rays are clipped to
    T start;     // rays start that far behind where they enter the ball
    T reach;     // 0: cones, split where they end; else dfr's rule: a ray is split if its
                 // nearest value is at most sqrt((reach * its t)^2 / 2 + 1/1024)
    T patience;  // after so many evaluations a ray's slack has doubled; it grows linearly

    SDFGAN_FIELDS(size, steps, rules, radius, start, reach, patience)
};

// Surfaces of FiLM-SIRENs, one in each square image; see film_siren_trace.cpp and .cu.
// Pixels without a ray keep what status, distance and nearest held before.
template <class T>
struct FilmSirenTrace {
    FilmSiren<T> network;
    const T* cameras;  // [images, 3, 4] camera to world
    HostArray<TraceLevel<T>> levels;
    const T* jitter;  // [images, size, size] added to the start of the last level's rays, or null
    uint8_t* status;  // [images, size, size] RayStatus, or kUntraced
    T* distance;      // [images, size, size] of the hit or the nearest miss
    T* nearest;       // [images, size, size] smallest value of the traced function
    int64_t* counts;  // [2] 0; points evaluated for rays, and in all (with idle lanes)
    LayerArrays<T> layers;  // of the rays of the last level; rays = images * size^2
    void* workspace;        // film_siren_trace_workspace() bytes; CUDA only
    T plane_distance;       // 1/tan(fov/2)
    Mirror<T> mirror;       // of the network

    SDFGAN_FIELDS(network, cameras, levels, jitter, status, distance, nearest, counts, layers,
                  workspace, plane_distance, mirror)
};

}  // namespace sdfgan
