// The march of one ray (core/march.h) on the arrays of the operators start_level and trace_step.
#pragma once

#include "core/march.h"
#include "core/rays.h"
#include "kernels/trace.h"

namespace sdfgan {

// Ray `index` of the array state [5, rays].
template <class T>
SDFGAN_HD RayState<T> load_ray(const T* state, int64_t rays, int64_t index, T far, uint8_t status) {
    const T* const s = state + index;
    return {s[0], far, s[rays], s[2 * rays], s[3 * rays], s[4 * rays], status};
}

template <class T>
SDFGAN_HD void store_ray(const RayState<T>& ray, T* state, int64_t rays, int64_t index) {
    T* const s = state + index;
    s[0] = ray.t;
    s[rays] = ray.nearest;
    s[2 * rays] = ray.nearest_t;
    s[3 * rays] = ray.last_value;
    s[4 * rays] = ray.last_step;
}

// A ray that begins where its coarser one allows, and `offset` behind where it enters the ball.
template <class T>
SDFGAN_HD RayState<T> start_march(const PixelRay<T>& ray, const Split<T>& from, T offset) {
    const T start = max_of(ray.near, from.start) + offset;
    const bool marches = from.split && ray.far > start;
    const uint8_t status = marches ? kMarching : kUntraced;
    return {start, ray.far, T(march_detail::kFarAway), start, from.slope, 0, status};
}

// Makes the ray of a pixel of the level; returns whether it marches.
template <class T>
SDFGAN_HD bool start_ray(const StartLevel<T>& p, int64_t index) {
    const int64_t pixels = p.size * p.size, rays = p.images * pixels;
    const int64_t image = index / pixels, row = index % pixels / p.size, column = index % p.size;
    Split<T> from{true, 0, 1};
    if (p.parent_state) {
        const int64_t scale = p.size / p.parent_size, parents = p.parent_size * p.parent_size;
        const int64_t parent = image * parents + row / scale * p.parent_size + column / scale;
        from = split_pixel(
            load_ray(p.parent_state, p.images * parents, parent, T(0), p.parent_status[parent]),
            p.parent_reach);
    }
    const PixelRay<T> ray = pixel_ray(p.cameras + 12 * image, column, row, p.size, p.size,
                                      p.plane_distance, radius_of(p, image));
    const RayState<T> state =
        start_march(ray, from, p.offset + (p.jitter ? p.jitter[index] : T(0)));
    for (int i = 0; i < 3; ++i) {
        p.origins[3 * index + i] = ray.origin[i];
        p.directions[3 * index + i] = ray.direction[i];
    }
    p.start[index] = state.t;
    p.far[index] = state.far;
    p.status[index] = state.status;
    store_ray(state, p.state, rays, index);
    return state.status == kMarching;
}

// The first point of the ray alive[slot].
template <class T>
SDFGAN_HD void first_point(const StartLevel<T>& p, int64_t slot) {
    const int64_t ray = p.alive[slot];
    for (int i = 0; i < 3; ++i) {
        p.points[3 * slot + i] = p.origins[3 * ray + i] + p.start[ray] * p.directions[3 * ray + i];
    }
}

// Entries that the step looks at: count[0], whatever it holds.
template <class T>
SDFGAN_HD int64_t live_entries(const TraceStep<T>& p) {
    return min_of(max_of<int64_t>(*p.count, 0), p.entries);
}

// Moves a point with these coordinates to where a network with a mirror is asked.
template <class T>
SDFGAN_HD void mirror_point(const Mirror<T>& mirror, T& x, T& z) {
    const T distance = mirror.x * x + mirror.z * z;
    const T moved = std::sqrt(distance * distance + mirror.softness * mirror.softness) - distance;
    x += mirror.x * moved;
    z += mirror.z * moved;
}

// Advances with what `layers` collects; no step follows the `last` one.
template <class T, class Collector>
SDFGAN_HD bool advance_or_end(RayState<T>& ray, T sdf, const MarchRules<T>& rules,
                              const Collector& layers, bool last) {
    const bool goes_on = advance(ray, sdf, rules, layers);
    if (goes_on && last && ray.status == kMarching) layers.finish(ray, rules);
    return goes_on && !last;
}

// As advance_or_end, with the layers of ray `index` in arrays.
template <class T>
SDFGAN_HD bool advance_with_layers(const LayerArrays<T>& arrays, int64_t rays, int64_t index,
                                   RayState<T>& ray, T sdf, const MarchRules<T>& rules, bool last) {
    T* const o = arrays.open + index;
    OpenLayer<T> open{o[0], o[rays], o[2 * rays], o[3 * rays], o[4 * rays]};
    const Layers<T> layers{open, arrays.count[index], arrays.most, arrays.layers + index, rays};
    const bool goes_on = advance_or_end(ray, sdf, rules, layers, last);
    o[0] = open.before;
    o[rays] = open.before_t;
    o[2 * rays] = open.after;
    o[3 * rays] = open.after_t;
    o[4 * rays] = open.enter;
    return goes_on;
}

// Applies values[entry] to its ray; returns whether the ray goes on.
template <class T>
SDFGAN_HD bool trace_ray(const TraceStep<T>& p, int64_t entry) {
    const int64_t ray = p.alive[entry];
    if (ray < 0 || ray >= p.rays) return false;
    RayState<T> s = load_ray(p.state, p.rays, ray, p.far[ray], p.status[ray]);
    const T sdf = p.values[entry];
    const bool goes_on = p.layers.layers
                             ? advance_with_layers(p.layers, p.rays, ray, s, sdf, p.rules, p.last)
                             : advance_or_end(s, sdf, p.rules, NoLayers(), p.last);
    store_ray(s, p.state, p.rays, ray);
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
