// Distances to triangle meshes and generalised winding numbers over one tree of boxes, eight
// children to a node and eight triangles to a leaf.
//
// A triangle lies in a leaf in a frame of its own: the origin is a corner, the first axis the
// longest side, the third the normal, all made in double. In that frame a point's distance is one
// of the plane, and nothing divides by an area, so that the rounding of a float32 distance is that
// of moving the point by some 1e-7 of its distance from the corner, slivers or not. The distance
// that is returned is computed again in double, for the triangle found.
//
// Winding numbers: Jacobson et al., "Robust Inside-Outside Segmentation using Generalized Winding
// Numbers", 2013; of far nodes by the Taylor expansion of Barill et al., "Fast Winding Numbers for
// Soups and Clouds", 2018, to its second term; of triangles by van Oosterom and Strackee, 1983.
#pragma once

#include <cstring>
#include <type_traits>

#include "core/common.h"
#include "kernels/mesh.h"

namespace sdfgan {

// Rows of a triangle in its frame: corners (0, 0), (length, 0), (x, y) with y >= 0.
enum TriangleRow {
    kOrigin = 0,  // 3 rows each, in the world
    kU = 3,
    kV = 6,
    kN = 9,
    kLength = 12,
    kX = 13,
    kY = 14,
    kInverseAc = 15,  // 1 / squared length of the sides at the third corner; 0 for none
    kInverseBc = 16,
    kTriangleRows = 17,
};

template <class T>
struct Triangle {
    T row[kTriangleRows];
    SDFGAN_METHOD T operator()(int i) const { return row[i]; }
};

constexpr int kLanes = 8;
constexpr int kLeafValues = kTriangleRows * kLanes;

// Real is the type that lanes are worked on in: float, or on the CPU a vector of them.
template <class Real>
SDFGAN_HD Real load(const float* from) {
    Real lanes;
    memcpy(&lanes, from, sizeof(Real));
    return lanes;
}

template <class Real>
SDFGAN_HD void store(float* to, Real lanes) {
    memcpy(to, &lanes, sizeof(Real));
}

// 1 / sqrt(x) to some 2e-7, for normal x > 0; finite for 0. Vectors: a linear guess of the
// logarithm and Newton's steps, for dividing and rooting would take most of the time.
template <class Real>
SDFGAN_HD Real inverse_root(Real x) {
    if constexpr (std::is_floating_point_v<Real>) {
        return x > 0 ? 1 / std::sqrt(x) : 0;
    } else {
        decltype(x < x) bits;
        memcpy(&bits, &x, sizeof bits);
        bits = 0x5f375a86 - (bits >> 1);
        Real y;
        memcpy(&y, &bits, sizeof y);
        const Real half = 0.5f * x;
        for (int i = 0; i < 3; ++i) y = y * (1.5f - half * y * y);
        return y;
    }
}

template <class Real>
SDFGAN_HD Real root(Real x) {
    return x * inverse_root(x);
}

template <class Real>
constexpr int kStep = sizeof(Real) / sizeof(float);  // lanes that go together

// Rows of kLanes values: the triangles of a leaf, or the children of a node.
template <class Real>
struct RowsOf {
    const float* values;
    SDFGAN_METHOD Real operator()(int i) const { return load<Real>(values + i * kLanes); }
};

// Rows of a node, one lane for each child.
enum NodeRow {
    kLow = 0,      // 3 rows: the box
    kHigh = 3,     // 3
    kCentre = 6,   // 3: of the area
    kNormal = 9,   // 3: sum of the area vectors
    kMoment = 12,  // 6: sum of (triangle's centre - centre) x area vector, its symmetric part
                   //    without trace: xx, xy, xz, yy, yz, zz
    kReach = 18,   // squared distance of the farthest corner from the centre
    kNodeRows = 19,
};
constexpr int kNodeValues = kNodeRows * kLanes;

// What children hold: a node, or a leaf as its complement; a child that is none has an infinite box
// and weighs nothing.
constexpr int kNone = INT32_MIN;
constexpr float kFarNode = 2;    // a node is far beyond that many times its reach
constexpr int kMostStack = 256;  // cpu/mesh_tree.cpp bounds the depth for it

template <class T>
SDFGAN_HD T dot3(const T* a, const T* b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// The corners a, b, c in the frame; any triangle, points and segments too.
template <class T>
SDFGAN_HD Triangle<T> make_triangle(const T* a, const T* b, const T* c) {
    const T* corner[5] = {a, b, c, a, b};
    T longest = -1;
    int first = 0;
    for (int i = 0; i < 3; ++i) {
        T square = 0;
        for (int k = 0; k < 3; ++k) {
            const T side = corner[i + 1][k] - corner[i][k];
            square += side * side;
        }
        if (square > longest) {
            longest = square;
            first = i;
        }
    }
    Triangle<T> t;
    T* const origin = t.row + kOrigin;
    T *const u = t.row + kU, *const v = t.row + kV, *const n = t.row + kN;
    T to_c[3];
    const T length = std::sqrt(longest);
    for (int k = 0; k < 3; ++k) {
        origin[k] = corner[first][k];
        u[k] = longest > 0 ? (corner[first + 1][k] - origin[k]) / length : T(k == 0);
        to_c[k] = corner[first + 2][k] - origin[k];
    }
    const T x = dot3(to_c, u);
    // What to_c has across u. Of a triangle without area that is rounding, in any direction: only
    // what the second round leaves lies across.
    for (int k = 0; k < 3; ++k) v[k] = to_c[k] - x * u[k];
    T norm = std::sqrt(dot3(v, v));
    for (int round = 0; round < 2 && norm > 0; ++round) {
        for (int k = 0; k < 3; ++k) v[k] /= norm;
        const T along = dot3(v, u);
        for (int k = 0; k < 3; ++k) v[k] -= along * u[k];
        norm = std::sqrt(dot3(v, v));
    }
    if (!(norm > T(0.5))) {  // any direction across u, from the axis that is farthest from it
        int axis = 0;
        for (int k = 1; k < 3; ++k) {
            if (std::fabs(u[k]) < std::fabs(u[axis])) axis = k;
        }
        for (int k = 0; k < 3; ++k) v[k] = T(k == axis) - u[axis] * u[k];
        norm = std::sqrt(dot3(v, v));
    }
    for (int k = 0; k < 3; ++k) v[k] /= norm;
    const T y = max_of(dot3(to_c, v), T(0));
    for (int k = 0; k < 3; ++k) {
        n[k] = u[(k + 1) % 3] * v[(k + 2) % 3] - u[(k + 2) % 3] * v[(k + 1) % 3];
    }
    const T ac = x * x + y * y, bc = (x - length) * (x - length) + y * y;
    t.row[kLength] = length;
    t.row[kX] = x;
    t.row[kY] = y;
    t.row[kInverseAc] = ac > 0 ? 1 / ac : 0;
    t.row[kInverseBc] = bc > 0 ? 1 / bc : 0;
    return t;
}

// A point in the frame of a triangle, h above its plane.
template <class T>
struct Local {
    T x, y, h;
};

// row(i) is the i-th member of a Triangle.
template <class T, class Row>
SDFGAN_HD Local<T> local_point(const Row row, const T* p) {
    const T x = p[0] - row(0), y = p[1] - row(1), z = p[2] - row(2);
    return {x * row(3) + y * row(4) + z * row(5), x * row(6) + y * row(7) + z * row(8),
            x * row(9) + y * row(10) + z * row(11)};
}

template <class T>
SDFGAN_HD T clamp_unit(T t) {
    return min_of(max_of(t, T{}), T{} + 1);
}

// The vector in the plane from the closest point of the triangle to p; returns its square.
template <class T, class Row>
SDFGAN_HD T from_triangle(const Row row, const Local<T>& p, T& dx, T& dy) {
    const T length = row(kLength), cx = row(kX), cy = row(kY);
    dx = p.x - min_of(max_of(p.x, T{}), length);  // side ab
    dy = p.y;
    T best = dx * dx + dy * dy;

    const T along_ac = clamp_unit((p.x * cx + p.y * cy) * row(kInverseAc));
    const T ac_x = p.x - along_ac * cx, ac_y = p.y - along_ac * cy;
    const T ac = ac_x * ac_x + ac_y * ac_y;
    dx = ac < best ? ac_x : dx;
    dy = ac < best ? ac_y : dy;
    best = ac < best ? ac : best;

    const T bx = p.x - length, ex = cx - length;
    const T along_bc = clamp_unit((bx * ex + p.y * cy) * row(kInverseBc));
    const T bc_x = bx - along_bc * ex, bc_y = p.y - along_bc * cy;
    const T bc = bc_x * bc_x + bc_y * bc_y;
    dx = bc < best ? bc_x : dx;
    dy = bc < best ? bc_y : dy;
    best = bc < best ? bc : best;

    // Sides are done: strictly inside, which a point or a segment never is.
    const auto inside = (p.y > 0) & (p.x * cy - p.y * cx > 0) & (ex * p.y - cy * bx > 0);
    dx = inside ? T{} : dx;
    dy = inside ? T{} : dy;
    return inside ? T{} : best;
}

template <class T>
SDFGAN_HD T magnitude(T x) {
    return x < 0 ? -x : x;
}

// The solid angle of a triangle is twice the angle of (cosine, sine), positive from inside.
// Returns less than 0 where (cosine, sine) is so much smaller than its terms that float32 would not
// do.
template <class T, class Row>
SDFGAN_HD T solid_angle(const Row row, const Local<T>& p, T& cosine, T& sine) {
    const T length = row(kLength), cx = row(kX), cy = row(kY);
    const T bx = p.x - length, ax = p.x - cx, ay = p.y - cy;  // from corners b and c
    const T hh = p.h * p.h, yh = p.y * p.y + hh;
    const T la = root(p.x * p.x + yh), lb = root(bx * bx + yh);
    const T lc = root(ax * ax + ay * ay + hh);
    const T product = la * lb * lc;
    sine = -p.h * length * cy;
    cosine = product + (p.x * bx + yh) * lc + (bx * ax + p.y * ay + hh) * la +
             (ax * p.x + ay * p.y + hh) * lb;
    return magnitude(cosine) + magnitude(sine) - product * 0.0009765625f;
}

// The angle of (x, y) in [-pi, pi] to 3e-7, without branches; 0 where y is 0.
template <class T>
SDFGAN_HD T fast_angle(T y, T x) {
    const T ax = magnitude(x), ay = magnitude(y);
    const T high = max_of(ax, ay), low = min_of(ax, ay);
    const T t = low / (high > 0 ? high : T{} + 1), s = t * t;
    T a = T{} + 0.00681178970f;  // least largest error over [0, 1]
    a = a * s - 0.033604208f;
    a = a * s + 0.079623655f;
    a = a * s - 0.132333413f;
    a = a * s + 0.198078156f;
    a = a * s - 0.333173692f;
    a = a * s + 0.999996126f;
    a *= t;
    a = ay > ax ? 1.57079633f - a : a;
    a = x < 0 ? 3.14159265f - a : a;
    a = y < 0 ? -a : a;
    return y == 0 ? T{} : a;
}

// In double, from the corners.
SDFGAN_HD Triangle<double> exact_triangle(const MeshTree& tree, int32_t face) {
    double corners[3][3];
    for (int i = 0; i < 3; ++i) {
        const int64_t vertex = tree.faces[3 * int64_t{face} + i];
        for (int k = 0; k < 3; ++k) corners[i][k] = tree.vertices[3 * vertex + k];
    }
    return make_triangle(corners[0], corners[1], corners[2]);
}

// p in all lanes.
template <class Real>
struct Lanes {
    Real at[3];
    SDFGAN_METHOD explicit Lanes(const float* p)
        : at{p[0] - Real{}, p[1] - Real{}, p[2] - Real{}} {}
};

// The lane of a leaf's triangle that is nearest, if nearer than `best`, which it becomes; else -1.
template <class Real>
SDFGAN_HD int nearest_lane(const float* leaf, const Lanes<Real>& p, float& best) {
    float squares[kLanes];
    for (int i = 0; i < kLanes; i += kStep<Real>) {
        const RowsOf<Real> triangles{leaf + i};
        const Local<Real> local = local_point(triangles, p.at);
        Real dx, dy;
        store(squares + i, from_triangle(triangles, local, dx, dy) + local.h * local.h);
    }
    int nearest = -1;
    for (int i = 0; i < kLanes; ++i) {
        if (squares[i] < best) {
            best = squares[i];
            nearest = i;
        }
    }
    return nearest;
}

// The slot (leaf * kLanes + lane) of a triangle nearest to p, and its squared distance. `slot` is a
// guess, or -1; and -1 comes back for points that are not finite.
template <class Real>
SDFGAN_HD int64_t nearest_slot(const MeshTree& tree, const float* point, int64_t slot,
                               float& best) {
    const Lanes<Real> p(point);
    float stack_square[kMostStack];
    int32_t stack[kMostStack];
    best = INFINITY;
    if (slot >= 0) {
        const int64_t leaf = slot / kLanes;
        const int lane = nearest_lane(tree.leaves + leaf * kLeafValues, p, best);
        slot = lane < 0 ? -1 : leaf * kLanes + lane;
    }
    stack_square[0] = 0;
    stack[0] = 0;
    for (int size = 1; size > 0;) {
        --size;
        if (!(stack_square[size] < best)) continue;
        const int32_t child = stack[size];
        if (child < 0) {
            const int64_t leaf = ~child;
            const int lane = nearest_lane(tree.leaves + leaf * kLeafValues, p, best);
            if (lane >= 0) slot = leaf * kLanes + lane;
            continue;
        }
        const float* node = tree.nodes + int64_t{child} * kNodeValues;
        float squares[kLanes];
        for (int i = 0; i < kLanes; i += kStep<Real>) {
            Real square{};
            for (int k = 0; k < 3; ++k) {
                const Real below = load<Real>(node + (kLow + k) * kLanes + i) - p.at[k];
                const Real above = p.at[k] - load<Real>(node + (kHigh + k) * kLanes + i);
                const Real gap = max_of(max_of(below, above), Real{});
                square += gap * gap;
            }
            store(squares + i, square);
        }
        const int bottom = size;
        for (int i = 0; i < kLanes; ++i) {  // the nearest child ends on top
            if (!(squares[i] < best)) continue;
            int j = size++;
            for (; j > bottom && stack_square[j - 1] < squares[i]; --j) {
                stack_square[j] = stack_square[j - 1];
                stack[j] = stack[j - 1];
            }
            stack_square[j] = squares[i];
            stack[j] = tree.children[int64_t{child} * kLanes + i];
        }
    }
    return slot;
}

// What holds in any lane.
template <class Mask>
SDFGAN_HD bool any(Mask mask) {
    if constexpr (std::is_same_v<Mask, bool>) {
        return mask;
    } else {
        constexpr int kWords = sizeof(Mask) / sizeof(uint64_t);
        uint64_t words[kWords], all = 0;
        memcpy(words, &mask, sizeof mask);
        for (int i = 0; i < kWords; ++i) all |= words[i];
        return all != 0;
    }
}

// One lane of rows of kLanes values, for all points of a group. (x - 0 is x, which compilers know;
// not so x + 0.)
template <class Real>
struct OneOf {
    const float* values;
    SDFGAN_METHOD Real operator()(int i) const { return values[i * kLanes] - Real{}; }
};

// Half the solid angle of a triangle of a leaf.
template <class Real>
SDFGAN_HD Real half_angle(const MeshTree& tree, int64_t slot, const Real* p) {
    const OneOf<Real> triangle{tree.leaves + slot / kLanes * kLeafValues + slot % kLanes};
    Real cosine, sine;
    const Real certainty = solid_angle(triangle, local_point(triangle, p), cosine, sine);
    Real angle = fast_angle(sine, cosine);
    if (!any(certainty < 0)) return angle;
    const Triangle<double> exact = exact_triangle(tree, tree.leaf_faces[slot]);
    for (int i = 0; i < kStep<Real>; ++i) {  // all lanes, for it happens seldom
        float at_lane[3][kStep<Real>], angles[kStep<Real>];
        for (int k = 0; k < 3; ++k) store(at_lane[k], p[k]);
        const double at[3] = {at_lane[0][i], at_lane[1][i], at_lane[2][i]};
        double exact_cosine, exact_sine;
        solid_angle(exact, local_point(exact, at), exact_cosine, exact_sine);
        store(angles, angle);
        angles[i] = fast_angle(static_cast<float>(exact_sine), static_cast<float>(exact_cosine));
        angle = load<Real>(angles);
    }
    return angle;
}

// The winding numbers at a group of points, a lane each; the nearer to each other the sooner.
template <class Real>
SDFGAN_HD Real winding_numbers(const MeshTree& tree, const Real* p) {
    int32_t stack[kMostStack];
    stack[0] = 0;
    Real angle{};
    for (int size = 1; size > 0;) {
        const int64_t number = stack[--size];
        if (number < 0) {
            for (int i = 0; i < kLanes; ++i) angle += 2 * half_angle(tree, ~number * kLanes + i, p);
            continue;
        }
        for (int i = 0; i < kLanes; ++i) {
            const int32_t child = tree.children[number * kLanes + i];
            if (child == kNone) break;
            const OneOf<Real> row{tree.nodes + number * kNodeValues + i};
            const Real dx = row(kCentre) - p[0], dy = row(kCentre + 1) - p[1],
                       dz = row(kCentre + 2) - p[2];
            const Real square = dx * dx + dy * dy + dz * dz;
            if (any(!(square > kFarNode * kFarNode * row(kReach)))) {
                stack[size++] = child;
                continue;
            }
            const Real inverse = inverse_root(square);
            const Real x = dx * inverse, y = dy * inverse, z = dz * inverse;
            const Real first = x * row(kNormal) + y * row(kNormal + 1) + z * row(kNormal + 2);
            const Real second =
                x * (x * row(kMoment) + 2 * (y * row(kMoment + 1) + z * row(kMoment + 2))) +
                y * (y * row(kMoment + 3) + 2 * z * row(kMoment + 4)) + z * z * row(kMoment + 5);
            angle += (first - 3 * second * inverse) * inverse * inverse;
        }
    }
    return angle * 0.0795774715f;  // 1 / (4 pi)
}

// The distance of a point with the slot of a nearest triangle and its winding number.
SDFGAN_HD void measure_point(const MeshDistance& m, int64_t point, int64_t slot, float winding) {
    const float* p = m.points + 3 * point;
    if (slot < 0) {
        for (int k = 0; k < 3; ++k) m.closest[3 * point + k] = NAN;
        m.distance[point] = m.winding[point] = NAN;
        m.face[point] = -1;
        return;
    }
    const int32_t face = m.tree.leaf_faces[slot];
    const Triangle<double> triangle = exact_triangle(m.tree, face);
    const double at[3] = {p[0], p[1], p[2]};
    const Local<double> local = local_point(triangle, at);
    double dx, dy;
    const double square = from_triangle(triangle, local, dx, dy) + local.h * local.h;
    for (int k = 0; k < 3; ++k) {
        const double away =
            dx * triangle(kU + k) + dy * triangle(kV + k) + local.h * triangle(kN + k);
        m.closest[3 * point + k] = static_cast<float>(at[k] - away);
    }
    const float distance = static_cast<float>(std::sqrt(square));
    m.distance[point] = winding > 0.5f ? -distance : distance;
    m.face[point] = face;
    m.winding[point] = winding;
}

}  // namespace sdfgan
