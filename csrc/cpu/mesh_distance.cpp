// Distances to meshes (core/mesh.h), compiled once per instruction set.
#include "core/mesh.h"
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

// Each point's search begins with the triangle of the one before it; groups of points share the way
// through the tree to their winding numbers.
void SDFGAN_LEVEL(mesh_distance_)(const MeshDistance& m, const int32_t* order, int64_t begin,
                                  int64_t end) {
    constexpr int kGroupSize = kStep<Group>;
    int64_t slots[kGroupSize], slot = -1;
    alignas(kVectorBytes) float points[3][kGroupSize], windings[kGroupSize];
    for (; begin < end; begin += kGroupSize) {
        const int count = static_cast<int>(min_of<int64_t>(kGroupSize, end - begin));
        int measured = -1;  // a lane whose point is finite
        for (int i = 0; i < count; ++i) {
            const float* p = m.points + 3 * int64_t{order[begin + i]};
            slots[i] = nearest_slot<Lane>(m.tree, p, slot);
            if (slots[i] < 0) continue;
            slot = slots[i];
            measured = i;
            for (int k = 0; k < 3; ++k) points[k][i] = p[k];
        }
        if (measured >= 0) {
            for (int i = 0; i < kGroupSize; ++i) {  // the other lanes are to cost nothing
                if (i < count && slots[i] >= 0) continue;
                for (int k = 0; k < 3; ++k) points[k][i] = points[k][measured];
            }
            const Group p[3] = {load<Group>(points[0]), load<Group>(points[1]),
                                load<Group>(points[2])};
            store(windings, winding_numbers(m.tree, p));
        }
        for (int i = 0; i < count; ++i) measure_point(m, order[begin + i], slots[i], windings[i]);
    }
}

}  // namespace sdfgan::cpu
