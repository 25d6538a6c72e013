// Losses of histograms on CUDA: a thread per ray.
#include "core/histogram.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct SumOverlaps {
    OverlapSums<T> p;
    __device__ void operator()(int64_t i) const { overlap_sums_ray(p, i); }
};

template <class T>
struct DistortRay {
    Distortion<T> p;
    __device__ void operator()(int64_t i) const { distortion_ray(p, i); }
};

}  // namespace

template <class T>
void launch(const OverlapSums<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("interlevel_loss", p.rays, where, SumOverlaps<T>{p});
}

template <class T>
void launch(const Distortion<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("distortion_loss", p.rays, where, DistortRay<T>{p});
}

SDFGAN_INSTANTIATE_LAUNCH(Distortion)
SDFGAN_INSTANTIATE_LAUNCH(OverlapSums)

}  // namespace sdfgan::cuda
