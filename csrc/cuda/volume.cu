// CUDA launches of the kernels for volumes: one thread per ray, pixel, piece, coordinate or
// direction; to a ray that is composited or marches through a grid, several.
#include <type_traits>

#include "core/harmonics.h"
#include "core/histogram.h"
#include "core/integrated.h"
#include "core/pixels.h"
#include "cuda/composite.cuh"
#include "cuda/grid_march.cuh"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct EncodeGaussian {
    IntegratedPositionalEncoding<T> p;

    __device__ void operator()(int64_t i) const {
        T mean = p.means[i], variance = p.variances[i];
        T* target = p.out + i / p.dims * 2 * p.octaves * p.dims + i % p.dims;
        for (int octave = 0; octave < p.octaves; ++octave) {
            T sine, cosine;
            integrated_encode(mean, variance, sine, cosine);
            target[0] = sine;
            target[p.dims] = cosine;
            target += 2 * p.dims;
            mean *= 2;
            variance *= 4;
        }
    }
};

#define SDFGAN_BODY(Name, Parameters, statement)                   \
    template <class T>                                             \
    struct Name {                                                  \
        Parameters<T> p;                                           \
        __device__ void operator()(int64_t i) const { statement; } \
    };
SDFGAN_BODY(SumOverlaps, OverlapSums, overlap_sums_ray(p, i))
SDFGAN_BODY(DistortRay, Distortion, distortion_ray(p, i))
SDFGAN_BODY(SamplePixel, SamplePixels, sample_pixel(p, i))
SDFGAN_BODY(ReachSteps, MarchReached, march_reached_ray(p, i))
SDFGAN_BODY(FrustumPiece, FrustumGaussians, frustum_gaussian(p, i))
SDFGAN_BODY(EncodeLobe, IntegratedDirectionalEncoding, (harmonics<false, 1>(p, i, 1)))
SDFGAN_BODY(EncodeLobeBackward, IntegratedDirectionalEncoding, (harmonics<true, 1>(p, i, 1)))

template <class T>
void launch_(const OverlapSums<T>& p, const Where& where) {
    for_each("interlevel_loss", p.rays, where, SumOverlaps<T>{p});
}
template <class T>
void launch_(const Distortion<T>& p, const Where& where) {
    for_each("distortion_loss", p.rays, where, DistortRay<T>{p});
}
template <class T>
void launch_(const SamplePixels<T>& p, const Where& where) {
    for_each("sample_pixels", p.count, where, SamplePixel<T>{p});
}
template <class T>
void launch_(const MarchCount<T>& p, const Where& where) {
    for_each_ray("march_count", march_count_kernel<T>, p, where);
}
template <class T>
void launch_(const MarchSamples<T>& p, const Where& where) {
    for_each_ray("march_samples", march_samples_kernel<T>, p, where);
}
template <class T>
void launch_(const MarchReached<T>& p, const Where& where) {
    for_each("march_reached", p.at.rays, where, ReachSteps<T>{p});
}
template <class T>
void launch_(const FrustumGaussians<T>& p, const Where& where) {
    for_each("frustum_gaussians", p.rays * p.samples, where, FrustumPiece<T>{p});
}
template <class T>
void launch_(const IntegratedPositionalEncoding<T>& p, const Where& where) {
    for_each("integrated_positional_encoding", p.points * p.dims, where, EncodeGaussian<T>{p});
}
template <class T>
void launch_(const IntegratedDirectionalEncoding<T>& p, const Where& where) {
    if (p.grad_out) {
        for_each("integrated_directional_encoding", p.count, where, EncodeLobeBackward<T>{p});
    } else {
        for_each("integrated_directional_encoding", p.count, where, EncodeLobe<T>{p});
    }
}

}  // namespace

#define SDFGAN_DEFINE(Parameters)                          \
    void launch(const Parameters& p, const Where& where) { \
        const DeviceGuard guard(where.device);             \
        launch_(p, where);                                 \
    }
SDFGAN_VOLUME_KERNELS(SDFGAN_DEFINE, float)
SDFGAN_VOLUME_KERNELS(SDFGAN_DEFINE, double)

}  // namespace sdfgan::cuda
