// One step of sphere tracing (Hart 1996) for one ray: keep the smallest value and where it was,
// end the ray or advance it.
#pragma once

#include "core/common.h"
#include "kernels.h"

namespace sdfgan {

// The same numbers as sdfgan.ops.RayStatus.
enum RayStatus : uint8_t { kMarching = 0, kHit = 1, kLeft = 2, kInvalid = 3 };

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
    const T t = p.t[ray], value = p.values[entry] - p.cone_slope * t;
    if (value != value) {
        p.status[ray] = kInvalid;
        return false;
    }
    if (value < p.best_value[ray]) {
        p.best_value[ray] = value;
        p.best_t[ray] = t;
    }
    if (value <= p.threshold) {
        p.status[ray] = kHit;
        return false;
    }
    const T next = t + value * p.step_scale;
    const bool goes_on = next < p.far[ray];
    p.t[ray] = goes_on ? next : p.far[ray];
    p.status[ray] = goes_on ? kMarching : kLeft;
    return goes_on;
}

// The point to evaluate next for the survivor alive_out[slot].
template <class T>
SDFGAN_HD void next_point(const TraceStep<T>& p, int64_t slot) {
    const int64_t ray = p.alive_out[slot];
    for (int i = 0; i < 3; ++i) {
        p.points[3 * slot + i] = p.origins[3 * ray + i] + p.t[ray] * p.directions[3 * ray + i];
    }
}

}  // namespace sdfgan
