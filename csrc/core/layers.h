// The search for one layer: a local minimum of the sdf along a ray, which the march has bracketed
// (core/march.h), and where the ray enters the surface before it.
//
// A bracket has a falling and a rising end. Where the sdf is convex between them, their tangents
// bound the minimum from below, and it is sought where they meet; where a parabola fits both ends,
// at its apex. Entries are sought by Newton steps; those that leave their bracket halve it.
#pragma once

#include "core/common.h"
#include "kernels/layers.h"

namespace sdfgan {

// What a search awaits: of its minimum, the evaluations so far; kEntry + those of its entry.
enum LayerStage : uint8_t { kMinimum = 0, kEntry = 16, kFound = 255 };

// One end of a bracket: where, the sdf and its slope along the ray there, and its gradient.
template <class T>
struct LayerEnd {
    T t, value, slope;
    T gradient[3];

    SDFGAN_METHOD bool known() const { return value - value == 0; }  // infinite until evaluated
};

// A row of LayerStep::state. The first 8 numbers are what is sought.
template <class T>
struct LayerSearch {
    T t;          // where to evaluate next; in the end where the ray enters, or passes nearest
    T edge[2];    // just before and after the minimum
    T share;      // of the first of these in the minimum, in [0, 1]
    T nearest;    // sdf at the minimum
    T normal[3];  // gradient of the sdf there
    T pixel_size;
    T enter;      // where the march saw the ray enter the surface, or NaN
    T low, high;  // the bracket of the entry
    LayerEnd<T> falling, rising;
};
static_assert(sizeof(LayerSearch<float>) == kLayerNumbers * sizeof(float), "no padding");

namespace layer_detail {

constexpr int kRounds = 5, kEntryRounds = 3;  // evaluations, at most
constexpr double kHitTolerance = 0.05;        // pixels
constexpr double kTolerance = 0.02;           // pixels, of the sdf at the minimum
constexpr double kAside = 0.001;              // pixels
constexpr double kLeastSlope = 0.1;  // of the sdf along a ray that enters, in a Newton step

// The least that the minimum can be if the sdf is convex between the ends; where; how much it may
// be more.
template <class T>
struct Bounds {
    T low, at, doubt;
};

template <class T>
SDFGAN_HD Bounds<T> bounds_of(const LayerEnd<T>& a, const LayerEnd<T>& b) {
    const T width = b.t - a.t;
    T step = a.known() ? width : T(0);
    if (a.known() && b.known()) {
        step = (b.value - a.value - width * b.slope) / min_of(a.slope - b.slope, T(-1e-12));
    }
    step = min_of(max_of(step, T(0)), width);
    const T low = a.known() ? a.value + step * a.slope : b.value - (width - step) * b.slope;
    return {low, a.t + step, min_of(a.value, b.value) - low};
}

// Where to evaluate: at the other side, if only one is known.
template <class T>
SDFGAN_HD T next_of(const LayerEnd<T>& a, const LayerEnd<T>& b, T tangents, T reach) {
    const T width = b.t - a.t;
    if (!a.known() || !b.known()) return a.known() ? a.t + reach * width : b.t - reach * width;
    // The slope of a parabola is linear, so the trapezoid rule gives what the values say; not at a
    // kink.
    const T error = std::fabs(b.value - a.value - width * (a.slope + b.slope) / 2);
    const bool smooth = error < T(0.05) * width * (b.slope - a.slope);
    const T flat = a.t + width * a.slope / min_of(a.slope - b.slope, T(-1e-12));
    const T inner = smooth ? flat : tangents;
    return min_of(max_of(inner, a.t + T(0.02) * width), b.t - T(0.02) * width);
}

// Takes the minimum from its bracket; returns whether the ray meets the surface, whose entry is
// then sought from where the march saw it, or from the falling end. What is behind the middle of a
// thin solid is as near to its surface, but to the far one: rising points only narrow the bracket.
template <class T>
SDFGAN_HD bool close_bracket(LayerSearch<T>& s) {
    const LayerEnd<T>&a = s.falling, &b = s.rising;
    const bool both = a.known() && b.known();
    const Bounds<T> bounds = bounds_of(a, b);
    s.share = both ? b.slope / max_of(b.slope - a.slope, T(1e-12)) : T(a.known());
    // An end may be at the kink itself, where rounding decides on the side.
    const T aside = T(kAside) * s.pixel_size;
    s.edge[0] = (a.known() ? a.t : b.t) - aside;
    s.edge[1] = (b.known() ? b.t : a.t) + aside;
    const T lower = both ? bounds.doubt / 2 : T(0);  // the middle of what is possible
    s.nearest = min_of(a.value, b.value) - lower;
    for (int i = 0; i < 3; ++i) {
        s.normal[i] = s.share * a.gradient[i] + (1 - s.share) * b.gradient[i];
    }
    if (!(s.nearest < 0)) {
        s.t = a.value < b.value ? a.t : b.t;
        return false;
    }
    s.high = a.known() ? bounds.at : b.t;
    s.low = a.known() && a.value > 0 ? a.t : T(-INFINITY);
    s.t = s.enter < s.high ? s.enter : a.t;
    return true;
}

}  // namespace layer_detail

// Takes the sdf, its slope along the ray and its gradient at s.t; returns whether the search of the
// minimum goes on there.
template <class T>
SDFGAN_HD bool narrow_bracket(LayerSearch<T>& s, T value, T slope, const T* gradient, int round) {
    using namespace layer_detail;
    const LayerEnd<T> end{s.t, value, slope, {gradient[0], gradient[1], gradient[2]}};
    if (slope < 0 && value == value) s.falling = end;
    if (slope >= 0 && value == value) s.rising = end;
    if (round + 1 == kRounds) return false;
    const Bounds<T> bounds = bounds_of(s.falling, s.rising);
    if (!(bounds.doubt > T(kTolerance) * s.pixel_size && bounds.low < s.pixel_size)) return false;
    s.t = next_of(s.falling, s.rising, bounds.at, round == 0 ? T(0.5) : T(1));
    return true;
}

// Likewise, whether the search of the entry goes on.
template <class T>
SDFGAN_HD bool step_to_entry(LayerSearch<T>& s, T value, T slope, int round) {
    using namespace layer_detail;
    const bool falls = slope < 0, outside = falls && value > 0;
    const T size = std::fabs(value), tolerance = T(kHitTolerance) * s.pixel_size;
    if (outside) {
        s.low = s.t;
    } else {
        s.high = min_of(s.high, s.t);
    }
    const T newton = s.t - value / min_of(slope, T(-kLeastSlope));
    const bool inside = falls && newton >= s.low && newton <= s.high;
    const bool bounded = s.low - s.low == 0;
    s.t = inside ? newton : bounded ? (s.low + s.high) / 2 : s.t - 2 * size - tolerance;
    return round + 1 < kEntryRounds && (!inside || size > tolerance);
}

// Applies the values of an entry to its layer; returns whether the search goes on.
template <class T>
SDFGAN_HD bool search_layer(const LayerStep<T>& p, int64_t entry) {
    const int64_t layer = p.alive[entry];
    if (layer < 0 || layer >= p.layers) return false;
    LayerSearch<T>& s = reinterpret_cast<LayerSearch<T>*>(p.state)[layer];
    uint8_t& stage = p.stage[layer];
    if (stage == kFound) return false;
    const T value = p.values[entry];
    const T* const gradient = p.gradients + 3 * entry;
    const T* const direction = p.directions + 3 * layer;
    const T slope = gradient[0] * direction[0] + gradient[1] * direction[1] +
                    gradient[2] * direction[2];
    if (stage < kEntry) {
        const bool narrows = narrow_bracket(s, value, slope, gradient, stage);
        stage = narrows ? stage + 1 : layer_detail::close_bracket(s) ? kEntry : kFound;
    } else {
        stage = step_to_entry(s, value, slope, stage - kEntry) ? stage + 1 : kFound;
    }
    return stage != kFound;
}

// Entries that the step looks at: count[0], whatever it holds.
template <class T>
SDFGAN_HD int64_t live_entries(const LayerStep<T>& p) {
    return min_of(max_of<int64_t>(*p.count, 0), p.entries);
}

// The point to evaluate next for the survivor alive_out[slot].
template <class T>
SDFGAN_HD void next_point(const LayerStep<T>& p, int64_t slot) {
    const int64_t layer = p.alive_out[slot];
    const T t = p.state[kLayerNumbers * layer];
    for (int i = 0; i < 3; ++i) {
        p.points[3 * slot + i] = p.origins[3 * layer + i] + t * p.directions[3 * layer + i];
    }
}

}  // namespace sdfgan
