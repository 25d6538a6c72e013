// The march of one ray (core/march.h) on the arrays of the operator trace_step.
#pragma once

#include "core/march.h"
#include "kernels.h"

namespace sdfgan {

// Entries that the step looks at: count[0], whatever it holds.
template <class T>
SDFGAN_HD int64_t live_entries(const TraceStep<T>& p) {
    return min_of(max_of<int64_t>(*p.count, 0), p.entries);
}

// Applies values[entry] to its ray; returns whether the ray goes on.
template <class T>
SDFGAN_HD bool trace_ray(const TraceStep<T>& p, int64_t entry) {
    const int64_t ray = p.alive[entry];
    if (ray < 0 || ray >= p.rays) return false;
    T* const state = p.state + ray;
    RayState<T> s;
    s.far = p.far[ray];
    s.status = p.status[ray];
    T* const values[5] = {&s.t, &s.nearest, &s.nearest_t, &s.last_value, &s.last_step};
    for (int i = 0; i < 5; ++i) *values[i] = state[i * p.rays];
    const bool goes_on = advance(s, p.values[entry], p.rules);
    for (int i = 0; i < 5; ++i) state[i * p.rays] = *values[i];
    p.status[ray] = s.status;
    return goes_on;
}

// The point to evaluate next for the survivor alive_out[slot].
template <class T>
SDFGAN_HD void next_point(const TraceStep<T>& p, int64_t slot) {
    const int64_t ray = p.alive_out[slot];
    for (int i = 0; i < 3; ++i) {
        p.points[3 * slot + i] = p.origins[3 * ray + i] + p.state[ray] * p.directions[3 * ray + i];
    }
}

}  // namespace sdfgan
