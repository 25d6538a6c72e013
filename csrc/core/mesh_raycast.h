// Where rays meet a triangle mesh first, over the tree of core/mesh.h.
//
// Boxes by the slab test with the margin of Ize, "Robust BVH Ray Traversal", 2013. Triangles twice:
// all of a leaf at once in their own frames and in float32, with a tolerance that covers the
// rounding, and those that may be nearer once more in double, by the signed volumes that the ray
// spans with the three sides. Those of a side that two triangles share differ in their sign alone,
// so that no ray slips between them.
#pragma once

#include "core/mesh.h"

namespace sdfgan {

// A ray, and in all lanes what the float32 tests need of it.
template <class Real>
struct Ray {
    const float *origin, *direction;
    Real from[3], along[3], inverse[3];

    SDFGAN_METHOD Ray(const float* o, const float* d) : origin(o), direction(d) {
        const float largest =
            max_of(max_of(std::fabs(d[0]), std::fabs(d[1])), std::fabs(d[2]));
        for (int k = 0; k < 3; ++k) {
            from[k] = o[k] - Real{};
            along[k] = d[k] - Real{};
            // A tiny slope instead of none: its slab is met very far away, or never left.
            const float slope = max_of(std::fabs(d[k]), 1e-18f * largest);
            inverse[k] = 1 / (d[k] < 0 ? -slope : slope) - Real{};
        }
    }
};

constexpr float kSlabMargin = 1.0000005f;     // 4 roundings
constexpr float kPlaneTolerance = 2e-6f;      // of lengths, for the float32 test
constexpr double kSideTolerance = 1e-14;      // of the volumes' terms: contracted multiply-adds

// The double test of one triangle: whether the ray meets it before `best`, which then is where, in
// lengths of the direction; `weights` are the corners'.
SDFGAN_HD bool meets_face(const MeshTree& tree, int32_t face, const float* origin,
                          const float* direction, double& best, double* weights) {
    double corner[3][3], d[3];
    for (int k = 0; k < 3; ++k) d[k] = direction[k];
    for (int i = 0; i < 3; ++i) {
        const int64_t vertex = tree.faces[3 * int64_t{face} + i];
        for (int k = 0; k < 3; ++k) {
            corner[i][k] = double{tree.vertices[3 * vertex + k]} - origin[k];
        }
    }
    double volume[3], total = 0;  // of the sides opposite to the corners
    bool above = true, below = true;
    for (int i = 0; i < 3; ++i) {
        const double *b = corner[(i + 1) % 3], *c = corner[(i + 2) % 3];
        double size = 0;
        volume[i] = 0;
        for (int k = 0; k < 3; ++k) {
            const int l = (k + 1) % 3, m = (k + 2) % 3;
            const double left = b[l] * c[m], right = b[m] * c[l];
            volume[i] += d[k] * (left - right);
            size += std::fabs(d[k]) * (std::fabs(left) + std::fabs(right));
        }
        above = above && volume[i] >= -kSideTolerance * size;
        below = below && volume[i] <= kSideTolerance * size;
        total += volume[i];
    }
    if (!(above || below) || total == 0) return false;
    double at = 0;  // the three corners' distances along the ray, weighted
    const double square = dot3(d, d);
    double sum = 0;
    for (int i = 0; i < 3; ++i) {
        weights[i] = max_of(volume[i] / total, 0.0);
        sum += weights[i];
    }
    for (int i = 0; i < 3; ++i) {
        weights[i] /= sum;
        at += weights[i] * dot3(corner[i], d);
    }
    at /= square;
    if (!(at >= 0 && at < best)) return false;
    best = at;
    return true;
}

// Whether lanes of a leaf's triangles may be met before `best`: 1 or 0 in each lane.
template <class Real>
SDFGAN_HD void may_meet(const float* leaf, const Ray<Real>& ray, float best, float* candidates) {
    for (int i = 0; i < kLanes; i += kStep<Real>) {
        const RowsOf<Real> row{leaf + i};
        const Local<Real> from = local_point(row, ray.from);
        const Real dx = ray.along[0] * row(kU) + ray.along[1] * row(kU + 1) +
                        ray.along[2] * row(kU + 2);
        const Real dy = ray.along[0] * row(kV) + ray.along[1] * row(kV + 1) +
                        ray.along[2] * row(kV + 2);
        const Real dh = ray.along[0] * row(kN) + ray.along[1] * row(kN + 1) +
                        ray.along[2] * row(kN + 2);
        const Real t = -from.h / dh;
        const Real x = from.x + t * dx, y = from.y + t * dy;
        const Real length = row(kLength), cx = row(kX), cy = row(kY), ex = cx - length;
        // Where the ray meets the plane is as uncertain as its height above it, by the slope.
        const Real slope = (magnitude(dx) + magnitude(dy) + magnitude(dh)) / magnitude(dh);
        const Real error = (length + (magnitude(from.x) + magnitude(from.y) + magnitude(from.h)) *
                                         slope) * kPlaneTolerance;
        const Real wide = -error * length;
        const auto inside = (y >= -error) & (x * cy - y * cx >= wide) &
                            (ex * y - cy * (x - length) >= wide) & (cy > 0);
        const Real slack = error / (magnitude(dx) + magnitude(dy) + magnitude(dh));
        const auto near = (t >= -slack) & (t <= best + slack);
        store(candidates + i, (inside & near) ? Real{} + 1 : Real{});
    }
}

// Writes where a ray meets the mesh first.
template <class Real>
SDFGAN_HD void cast_ray(const MeshRaycast& m, int64_t number) {
    const float *origin = m.origins + 3 * number, *direction = m.directions + 3 * number;
    float* barycentric = m.barycentric + 3 * number;
    for (int k = 0; k < 3; ++k) barycentric[k] = 0;
    m.face[number] = -1;
    float size = 0, sum = 0;  // NaN and infinities go on to the sum
    for (int k = 0; k < 3; ++k) {
        size += std::fabs(direction[k]);
        sum += origin[k] * 0 + direction[k] * 0;
    }
    m.distance[number] = sum == 0 && size > 0 ? INFINITY : NAN;
    if (!(m.distance[number] > 0)) return;

    const Ray<Real> ray(origin, direction);
    float stack_entry[kMostStack];
    int32_t stack[kMostStack];
    stack_entry[0] = 0;
    stack[0] = 0;
    double best = INFINITY, weights[3];
    for (int size = 1; size > 0;) {
        --size;
        const float limit = static_cast<float>(best);
        if (stack_entry[size] > limit) continue;
        const int32_t child = stack[size];
        if (child < 0) {
            const int64_t leaf = ~child;
            float candidates[kLanes];
            may_meet(m.tree.leaves + leaf * kLeafValues, ray, limit, candidates);
            for (int i = 0; i < kLanes; ++i) {
                const int32_t face = m.tree.leaf_faces[leaf * kLanes + i];
                if (candidates[i] == 0) continue;
                if (!meets_face(m.tree, face, origin, direction, best, weights)) continue;
                m.face[number] = face;
                for (int k = 0; k < 3; ++k) barycentric[k] = static_cast<float>(weights[k]);
            }
            continue;
        }
        const float* node = m.tree.nodes + int64_t{child} * kNodeValues;
        float entries[kLanes], exits[kLanes];
        for (int i = 0; i < kLanes; i += kStep<Real>) {
            Real entry{}, exit = limit - Real{};
            for (int k = 0; k < 3; ++k) {
                const Real low =
                    (load<Real>(node + (kLow + k) * kLanes + i) - ray.from[k]) * ray.inverse[k];
                const Real high =
                    (load<Real>(node + (kHigh + k) * kLanes + i) - ray.from[k]) * ray.inverse[k];
                entry = max_of(entry, min_of(low, high));
                exit = min_of(exit, max_of(low, high) * kSlabMargin);
            }
            store(entries + i, entry);
            store(exits + i, exit);
        }
        const int bottom = size;
        for (int i = 0; i < kLanes; ++i) {  // the child that is entered first ends on top
            const int32_t inner = m.tree.children[int64_t{child} * kLanes + i];
            if (inner == kNone) break;
            if (!(entries[i] <= exits[i])) continue;
            int j = size++;
            for (; j > bottom && stack_entry[j - 1] < entries[i]; --j) {
                stack_entry[j] = stack_entry[j - 1];
                stack[j] = stack[j - 1];
            }
            stack_entry[j] = entries[i];
            stack[j] = inner;
        }
    }
    m.distance[number] = static_cast<float>(best);
}

}  // namespace sdfgan
