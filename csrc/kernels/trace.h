// Marching rays: core/march.h has the maths, core/trace.h puts it on these arrays.
#pragma once

#include <cstdint>

#include "core/march.h"
#include "kernels/fields.h"

namespace sdfgan {

// Where the layers of rays go; see core/march.h.
template <class T>
struct LayerArrays {
    T* layers;       // [most, 4, rays] the members of Layer; null: none are collected
    uint8_t* count;  // [rays] updated
    T* open;         // [5, rays] updated: the members of OpenLayer; unused by FilmSirenTrace
    int most;

    SDFGAN_FIELDS(layers, count, open, most)
};

// A plane through the vertical axis; see sdfgan/ops/film_siren.py. None where softness is 0.
template <class T>
struct Mirror {
    T x, z;  // of its unit normal
    T softness;

    SDFGAN_FIELDS(x, z, softness)
};

// One evaluation of the rays that are alive, and their stable compaction; see core/march.h.
// Entry k < count is ray alive[k], whose field value is values[k]. Entries outside [0, rays) are
// dropped. Each ray occurs at most once.
template <class T>
struct TraceStep {
    const T* values;       // [entries]
    const int32_t* alive;  // [entries]
    const int32_t* count;  // [1], on the device
    const T* origins;      // [rays, 3]
    const T* directions;   // [rays, 3]
    const T* far;          // [rays]
    T* state;              // [5, rays] updated: t, nearest, nearest_t, last_value, last_step
    uint8_t* status;       // [rays] updated: RayStatus
    T* points;             // [entries, 3] next points of the survivors, then zeros
    int32_t* alive_out;    // [entries] survivors in their order, then the last one again
    int32_t* count_out;    // [1]
    void* workspace;       // trace_step_workspace(entries) bytes; CUDA only
    int64_t workspace_size;
    int64_t entries;
    int64_t rays;
    MarchRules<T> rules;
    LayerArrays<T> layers;
    bool last;  // no step follows: layers end with it

    SDFGAN_FIELDS(values, alive, count, origins, directions, far, state, status, points, alive_out,
                  count_out, workspace, workspace_size, entries, rays, rules, layers, last)
};

// The rays of all pixels of one level of a trace, in the order of the pixels, and a list of those
// that are to be evaluated; see core/trace.h. rays = images * size^2.
template <class T>
struct StartLevel {
    const T* cameras;              // [images, 3, 4] camera to world
    const T* parent_state;         // [5, images * parent_size^2] of the level before; null: none
    const uint8_t* parent_status;  // [images * parent_size^2]
    const T* jitter;               // [rays] added to the start, or null
    T* origins;                    // [rays, 3]
    T* directions;                 // [rays, 3] unit
    T* start;                      // [rays]
    T* far;                        // [rays]
    T* state;                      // [5, rays]
    uint8_t* status;               // [rays] kMarching or kUntraced
    T* points;                     // [rays, 3] where to evaluate first, then zeros
    int32_t* alive;                // [rays] the rays that march, then the last one again
    int32_t* count;                // [1] how many
    void* workspace;               // start_level_workspace(rays) bytes; CUDA only
    int64_t workspace_size;
    int64_t images, size, parent_size;
    T plane_distance;  // 1/tan(fov/2)
    T radius, offset;  // TraceLevel's radius and start
    T parent_reach;    // TraceLevel's reach, of the level before
    const T* radii;    // [images] in place of the radius, or null

    SDFGAN_FIELDS(cameras, parent_state, parent_status, jitter, origins, directions, start, far,
                  state, status, points, alive, count, workspace, workspace_size, images, size,
                  parent_size, plane_distance, radius, offset, parent_reach, radii)
};

}  // namespace sdfgan
