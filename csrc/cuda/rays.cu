// Rays of cameras on CUDA: a thread per ray.
#include "core/rays.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct GenerateRay {
    GenerateRays<T> p;
    __device__ void operator()(int64_t ray) const { generate_ray(p, ray); }
};

}  // namespace

template <class T>
void launch(const GenerateRays<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("generate_rays", p.rays, where, GenerateRay<T>{p});
}

SDFGAN_INSTANTIATE_LAUNCH(GenerateRays)

}  // namespace sdfgan::cuda
