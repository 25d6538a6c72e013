// Distances to meshes on CUDA: a thread per point, over the CPU's tree (core/mesh.h). Neighbouring
// threads take points that `order` makes neighbours in space, so that they read the same nodes.
#include "core/mesh_raycast.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

struct MeasurePoint {
    MeshDistance p;
    __device__ void operator()(int64_t i) const {
        const int64_t point = p.order ? p.order[i] : i;
        const float* at = p.points + 3 * point;
        float square;
        const int64_t slot = nearest_slot<float>(p.tree, at, -1, square);
        measure_point(p, point, slot, slot < 0 ? 0 : winding_numbers<float>(p.tree, at));
    }
};

struct CastRay {
    MeshRaycast p;
    __device__ void operator()(int64_t i) const { cast_ray<float>(p, i); }
};

}  // namespace

void launch(const MeshRaycast& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("mesh_raycast", p.count, where, CastRay{p});
}

void launch(const MeshDistance& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("mesh_distance", p.count, where, MeasurePoint{p});
}

}  // namespace sdfgan::cuda
