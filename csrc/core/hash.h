// Multiresolution hash grids (Mueller et al. 2022, "Instant Neural Graphics Primitives"). A level
// has `cells` cells across the unit cube and features at their corners; grids are shifted by half a
// cell, so that those of different levels do not coincide. A feature at a point is interpolated
// between the corners around it: sum over corners of weight(point) * feature(corner).
#pragma once

#include "core/common.h"

namespace sdfgan {

// The weight of one end of a cell along one axis, and its first and second derivative by the
// coordinate.
template <class T>
struct HashEnd {
    T weight[3];
};

// One axis of a point on one level.
template <class T>
struct HashAxis {
    uint32_t cell;
    HashEnd<T> end[2];
};

// Outside of the unit cube values stay what they are at its faces. NaN gives NaN, in cell 0.
template <class T>
SDFGAN_HD HashAxis<T> hash_axis(T x, T cells, bool smooth) {
    const bool below = x < 0, above = x > 1;
    const T scaled = (below ? T(0) : above ? T(1) : x) * cells + T(0.5);
    const T first = std::floor(scaled), t = scaled - first;
    const T moves = (below | above) ? T(0) : cells;  // d scaled / dx
    // smooth: t^2 (3 - 2 t), whose slope is zero at both ends
    const T value = smooth ? t * t * (3 - 2 * t) : t;
    const T slope = (smooth ? 6 * t * (1 - t) : T(1)) * moves;
    const T bend = (smooth ? 6 - 12 * t : T(0)) * moves * moves;
    const uint32_t cell = static_cast<uint32_t>(static_cast<int32_t>(first >= 0 ? first : T(0)));
    return {cell, {{{1 - value, -slope, -bend}}, {{value, slope, bend}}}};
}

// Which end of the cell a corner is at.
SDFGAN_HD int hash_bit(int corner, int axis) { return corner >> axis & 1; }

// Where a corner's features are in a level with `side` corners along an axis: one after the other
// where they fit into the table, else where their hash says (eq. 4). `mask` is the number of
// entries - 1, a power of two less one, or 0 where all fit.
template <int kDims>
SDFGAN_HD uint32_t hash_index(const uint32_t (&corner)[kDims], uint32_t side, uint32_t mask) {
    constexpr uint32_t kPrimes[3] = {1u, 2654435761u, 805459861u};
    uint32_t dense = 0, hash = 0;
    for (int axis = kDims - 1; axis >= 0; --axis) {
        dense = dense * side + corner[axis];
        hash ^= corner[axis] * kPrimes[axis];
    }
    return mask == 0 ? dense : hash & mask;
}

// The weight of a corner: the product of those along each axis. With derivatives by a coordinate in
// the place of an axis's value and slope, it is the derivative by this coordinate.
template <class T, int kDims>
SDFGAN_HD T hash_weight(const T (&value)[kDims]) {
    T product = value[0];
    for (int axis = 1; axis < kDims; ++axis) product *= value[axis];
    return product;
}

// Its derivative along `direction`.
template <class T, int kDims>
SDFGAN_HD T hash_weight_along(const T (&value)[kDims], const T (&slope)[kDims],
                              const T (&direction)[kDims]) {
    T product = value[0], along = slope[0] * direction[0];
    for (int axis = 1; axis < kDims; ++axis) {
        along = along * value[axis] + product * (slope[axis] * direction[axis]);
        product *= value[axis];
    }
    return along;
}

}  // namespace sdfgan
