// Rays that step through a grid of cells; core/grid_march.h has the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"
#include "kernels/samples.h"

namespace sdfgan {

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

    SDFGAN_FIELDS(origins, directions, near, far, jitter, occupied, first, rays, resolution, step,
                  even)
};

// How many steps of each ray lie in occupied cells, `most` at most.
template <class T>
struct MarchCount {
    GridMarch<T> march;
    int64_t* counts;  // [rays + 1]: 0, then those of the rays
    int32_t* next;    // [rays] the step after the last one that was counted or found empty
    int64_t most;

    SDFGAN_FIELDS(march, counts, next, most)
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

    SDFGAN_FIELDS(march, at, points, directions, distances, deltas)
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

    SDFGAN_FIELDS(at, densities, deltas, depth, reached, next, limit)
};

}  // namespace sdfgan
