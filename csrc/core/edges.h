// The edge of one layer, and how much of its pixel it covers (sdfgan/raycast/coverage.py).
//
// Outside of a solid, the sdf tells where its contour is; inside, that of one whose rim is thinner
// than a pixel does not: it is the distance of the faces, which rises as the root of the distance
// from the contour, or not at all. So a hit there takes the edge of a miss beside it: a miss at
// pixel q with an edge at `distance` along (across, up) says that a hit at q + delta is at
// distance + delta . (across, up) from the same edge. Of the eight neighbours, and of the pixel's
// own misses, the one counts that is most nearly straight across.
#pragma once

#include "core/common.h"
#include "kernels/edges.h"

namespace sdfgan {
namespace edge_detail {

constexpr double kFlat = 0.01;         // of the sdf across a pixel, at least, in a distance
constexpr double kFarthestMiss = 2.0;  // pixels between a miss and its edge
constexpr double kFarthestHit = 0.2;   // pixels a hit may lie outside of it: beyond is another part
constexpr double kAside = 4.0;         // pixels of depth between a layer and its neighbour's
constexpr double kThin = 0.8;          // of what the sdf changes by outside: inside by less
constexpr double kNotStraight = 0.3;   // of the distance, in the cost of a neighbour

// In pixels, along a unit vector in the image; and how much the sdf changes across a pixel of
// size 1.
template <class T>
struct Edge {
    T distance, across, up, change;
};

template <class T>
SDFGAN_HD Edge<T> edge_at(const LayerEdges<T>& p, int64_t i) {
    const T* camera = p.camera + p.pixel[i] / (p.resolution * p.resolution) * 12;
    const T* n = p.normal + 3 * i;
    const T across = n[0] * camera[0] + n[1] * camera[4] + n[2] * camera[8];
    const T up = n[0] * camera[1] + n[1] * camera[5] + n[2] * camera[9];
    const T change = std::sqrt(across * across + up * up), safe = max_of(change, T(1e-9));
    return {p.nearest[i] / (p.size[i] * max_of(change, T(kFlat))), across / safe, up / safe,
            change};
}

// The area of {q in the unit square around 0: q . (across, up) + distance <= 0}.
template <class T>
SDFGAN_HD T half_plane_area(const Edge<T>& edge) {
    const T a = std::abs(edge.across), b = std::abs(edge.up);
    const T large = max_of(max_of(a, b), T(1e-6)), small = max_of(min_of(a, b), T(1e-6));
    const T away = std::abs(edge.distance);
    if (away <= (large - small) / 2) return T(0.5) - edge.distance / large;
    const T beyond = max_of((large + small) / 2 - away, T(0));
    const T cut = T(0.5) - beyond * beyond / (2 * large * small);
    return edge.distance > 0 ? T(0.5) - cut : T(0.5) + cut;
}

// The first layer of a pixel, or of those behind it.
template <class T>
SDFGAN_HD int64_t first_at(const LayerEdges<T>& p, int64_t pixel) {
    int64_t low = 0, high = p.layers;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (p.pixel[middle] < pixel) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

}  // namespace edge_detail

template <class T>
SDFGAN_HD void edge_of_layer(const LayerEdges<T>& p, int64_t i) {
    using namespace edge_detail;
    const Edge<T> own = edge_at(p, i);
    Edge<T> edge = own;
    int64_t source = i;
    T moved = 0;
    if (p.hit[i] && p.near[i] && (p.all_hits || !p.opaque[i])) {
        const int64_t side = p.resolution, pixel = p.pixel[i];
        const int64_t x = pixel % side, y = pixel / side % side;
        T least = INFINITY;
        for (int64_t dy = -1; dy <= 1; ++dy) {  // rows, downwards
            if (y + dy < 0 || y + dy >= side) continue;
            const int64_t row = pixel - x + dy * side;
            const int64_t last = row + min_of(x + 1, side - 1);
            for (int64_t j = first_at(p, row + max_of(x - 1, int64_t{0}));
                 j < p.layers && p.pixel[j] <= last; ++j) {
                if (p.hit[j] || !p.near[j]) continue;
                const Edge<T> other = edge_at(p, j);
                const T right = static_cast<T>(p.pixel[j] - row - x), down = static_cast<T>(dy);
                const T distance = other.distance - right * other.across + down * other.up;
                if (!(other.distance < T(kFarthestMiss) && distance < T(kFarthestHit))) continue;
                if (!p.all_hits &&
                    !(std::abs(p.t[j] - p.t[i]) < T(kAside) * p.size[i] &&
                      own.change < T(kThin) * other.change && distance > own.distance)) {
                    continue;
                }
                const T cost = std::abs(right * other.up + down * other.across) +
                               T(kNotStraight) * std::abs(distance);
                if (!(cost < least)) continue;
                least = cost;
                source = j;
                edge = other;
                moved = distance - other.distance;
            }
        }
    }
    const bool opaque = p.opaque[i] && source == i;
    p.source[i] = source;
    p.nearest_out[i] =
        source == i ? p.nearest[i] : p.nearest[source] + moved * p.size[source] * edge.change;
    edge.distance += moved;
    p.area[i] = opaque ? T(1) : half_plane_area(edge);
}

}  // namespace sdfgan
