// Distances to meshes and rays that meet them (core/mesh.h, core/mesh_raycast.h), compiled once per instruction set.
#include "core/mesh_raycast.h"
#include "cpu/table.h"

namespace sdfgan::cpu {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
// Of the children of a node or the triangles of a leaf, and of points.
typedef float Lane __attribute__((vector_size(kVectorBytes < 32 ? kVectorBytes : 32)));
typedef float Group __attribute__((vector_size(kVectorBytes)));

namespace {

// How far around a point no surface lies, `square` being its squared distance in float32, whose
// rounding goes with the size of the mesh.
float clearance(const MeshTree& tree, float square) {
    float size = 0;
    for (int i = 0; i < kLanes; ++i) {
        const float reach = tree.nodes[kReach * kLanes + i];
        if (tree.children[i] != kNone) size = max_of(size, reach);
    }
    return 0.999f * std::sqrt(square) - 1e-5f * std::sqrt(size);
}

}  // namespace

// Each point's search begins with the triangle of the one before it. The winding number of a closed
// mesh is that of a point before, if that lies nearer than any surface; those that are left share
// the way through the tree in groups.
void SDFGAN_LEVEL(mesh_distance_)(const MeshDistance& m, const int32_t* order, int64_t begin,
                                  int64_t end) {
    constexpr int kGroupSize = kStep<Group>, kLookBack = 8;
    const int count = static_cast<int>(end - begin);
    int64_t slots[kMeshPiece], slot = -1;
    float clear[kMeshPiece], windings[kMeshPiece];
    int like[kMeshPiece], first[kMeshPiece], firsts = 0;  // whose winding number is a point's
    const auto point = [&](int i) { return m.points + 3 * int64_t{order[begin + i]}; };
    for (int i = 0; i < count; ++i) {
        const float* p = point(i);
        float square;
        slots[i] = nearest_slot<Lane>(m.tree, p, slot, square);
        if (slots[i] < 0) continue;
        slot = slots[i];
        clear[i] = clearance(m.tree, square);
        like[i] = i;
        for (int j = i - 1; *m.tree.closed && j >= max_of(0, i - kLookBack); --j) {
            if (slots[j] < 0) continue;
            const float* q = point(j);
            const float away[3] = {p[0] - q[0], p[1] - q[1], p[2] - q[2]};
            const float clearer = max_of(max_of(clear[i], clear[j]), 0.f);
            if (dot3(away, away) < clearer * clearer) {
                like[i] = like[j];
                break;
            }
        }
        if (like[i] == i) first[firsts++] = i;
    }
    for (int start = 0; start < firsts; start += kGroupSize) {
        alignas(kVectorBytes) float points[3][kGroupSize], found[kGroupSize];
        const int filled = min_of(kGroupSize, firsts - start);
        for (int i = 0; i < kGroupSize; ++i) {  // the lanes that are left are to cost nothing
            const float* p = point(first[start + (i < filled ? i : 0)]);
            for (int k = 0; k < 3; ++k) points[k][i] = p[k];
        }
        const Group p[3] = {load<Group>(points[0]), load<Group>(points[1]), load<Group>(points[2])};
        store(found, winding_numbers(m.tree, p));
        for (int i = 0; i < filled; ++i) windings[first[start + i]] = found[i];
    }
    for (int i = 0; i < count; ++i) {
        measure_point(m, order[begin + i], slots[i], slots[i] < 0 ? NAN : windings[like[i]]);
    }
}

void SDFGAN_LEVEL(mesh_raycast_)(const MeshRaycast& m, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) cast_ray<Lane>(m, i);
}

}  // namespace sdfgan::cpu
