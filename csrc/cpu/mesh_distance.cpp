// Distances to meshes, one point after another (core/mesh.h), compiled once per instruction set.
#include "core/mesh.h"
#include "cpu/table.h"

namespace sdfgan::cpu {

#ifdef __AVX2__
typedef float Floats __attribute__((vector_size(32)));
#else
typedef float Floats __attribute__((vector_size(16)));
#endif

// Each point begins with the triangle of the one before it.
void SDFGAN_LEVEL(mesh_distance_)(const MeshDistance& p, const int32_t* order, int64_t begin,
                                  int64_t end) {
    int64_t slot = -1;
    for (int64_t i = begin; i < end; ++i) {
        const int64_t point = order[i];
        slot = nearest_slot<Floats>(p.tree, p.points + 3 * point, slot);
        measure_point<Floats>(p, point, slot);
    }
}

}  // namespace sdfgan::cpu
