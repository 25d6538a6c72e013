// The CPU loops of the kernels for volumes, compiled once per instruction set as kernels.cpp is.
#include "cpu/volume.h"

#include "core/composite.h"
#include "core/harmonics.h"
#include "core/histogram.h"
#include "core/integrated.h"
#include "core/pixels.h"

namespace sdfgan::cpu {

// grid_march.cpp
#define SDFGAN_DECLARE(T)                                                                \
    void SDFGAN_LEVEL(march_count_)(const MarchCount<T>&, int64_t begin, int64_t end);     \
    void SDFGAN_LEVEL(march_samples_)(const MarchSamples<T>&, int64_t begin, int64_t end); \
    void SDFGAN_LEVEL(march_reached_)(const MarchReached<T>&, int64_t begin, int64_t end);
SDFGAN_DECLARE(float)
SDFGAN_DECLARE(double)
#undef SDFGAN_DECLARE

namespace {

template <class T>
void composite(const Composite<T>& p, int64_t begin, int64_t end) {
    constexpr int kBlock = 64;
    for (int64_t ray = begin; ray < end; ++ray) {
        p.channels == 3 ? composite_ray<3, kBlock>(p, ray) : composite_ray<0, kBlock>(p, ray);
    }
}

template <class T>
void composite_backward(const CompositeBackward<T>& p, int64_t begin, int64_t end) {
    constexpr int kBlock = 64;
    for (int64_t ray = begin; ray < end; ++ray) {
        p.channels == 3 ? composite_ray_backward<3, kBlock>(p, ray)
                        : composite_ray_backward<0, kBlock>(p, ray);
    }
}

template <class T>
void overlap_sums(const OverlapSums<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) overlap_sums_ray(p, ray);
}

template <class T>
void distortion(const Distortion<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) distortion_ray(p, ray);
}

template <class T>
void sample_pixels(const SamplePixels<T>& p, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sample_pixel(p, i);
}

template <class T>
void frustum_gaussians(const FrustumGaussians<T>& p, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) frustum_gaussian(p, i);
}

// Coordinates go through in tiles, as in positional_encoding.
template <class T>
void integrated_positional_encoding(const IntegratedPositionalEncoding<T>& p, int64_t begin,
                                    int64_t end) {
    constexpr int64_t kTile = 64;
    T mean[kTile], variance[kTile], sine[kTile], cosine[kTile];
    T* target[kTile];
    for (int64_t start = begin * p.dims; start < end * p.dims; start += kTile) {
        const int64_t n = min_of(kTile, end * p.dims - start);
        for (int64_t i = 0; i < n; ++i) {
            mean[i] = p.means[start + i];
            variance[i] = p.variances[start + i];
            target[i] =
                p.out + (start + i) / p.dims * 2 * p.octaves * p.dims + (start + i) % p.dims;
        }
        for (int octave = 0; octave < p.octaves; ++octave) {
            for (int64_t i = 0; i < n; ++i) {
                integrated_encode(mean[i], variance[i], sine[i], cosine[i]);
            }
            for (int64_t i = 0; i < n; ++i) {
                target[i][0] = sine[i];
                target[i][p.dims] = cosine[i];
                target[i] += 2 * p.dims;
                mean[i] *= 2;
                variance[i] *= 4;
            }
        }
    }
}

template <class T>
void integrated_directional_encoding(const IntegratedDirectionalEncoding<T>& p, int64_t begin,
                                     int64_t end) {
    constexpr int kLanes = 16;
    for (int64_t first = begin; first < end; first += kLanes) {
        const int count = static_cast<int>(min_of<int64_t>(kLanes, end - first));
        p.grad_out ? harmonics<true, kLanes>(p, first, count)
                   : harmonics<false, kLanes>(p, first, count);
    }
}

template <class T>
constexpr VolumeKernels<T> kVolumeKernels = {composite<T>,
                                             composite_backward<T>,
                                             overlap_sums<T>,
                                             distortion<T>,
                                             sample_pixels<T>,
                                             SDFGAN_LEVEL(march_count_),
                                             SDFGAN_LEVEL(march_samples_),
                                             SDFGAN_LEVEL(march_reached_),
                                             frustum_gaussians<T>,
                                             integrated_positional_encoding<T>,
                                             integrated_directional_encoding<T>};

}  // namespace

extern const VolumeKernels<float> SDFGAN_LEVEL(volume_f32_) = kVolumeKernels<float>;
extern const VolumeKernels<double> SDFGAN_LEVEL(volume_f64_) = kVolumeKernels<double>;

}  // namespace sdfgan::cpu
