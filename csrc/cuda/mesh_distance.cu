// Distances to meshes on CUDA: a thread per point, over the CPU's tree (core/mesh.h). Neighbouring
// threads take points that `order` makes neighbours in space, so that they read the same nodes.
#include "core/mesh.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

struct MeasurePoint {
    MeshDistance p;
    __device__ void operator()(int64_t i) const {
        const int64_t point = p.order ? p.order[i] : i;
        measure_point<float>(p, point, nearest_slot<float>(p.tree, p.points + 3 * point, -1));
    }
};

}  // namespace

void launch(const MeshDistance& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("mesh_distance", p.count, where, MeasurePoint{p});
}

}  // namespace sdfgan::cuda
