// Splits the kernels for volumes over threads and calls the table of the instruction set.
#include "cpu/parallel.h"
#include "cpu/volume.h"

namespace sdfgan::cpu {
namespace {

constexpr int64_t kGrain = 4096;  // values per thread below which a second thread does not pay

// body(begin, end) on pieces of n elements of `size` values each.
template <class Body>
void split(int64_t n, int64_t size, const Where& where, const Body& body) {
    const int64_t grain = size < kGrain ? kGrain / (size < 1 ? 1 : size) : 1;
    parallel_for(n, grain, where.threads, body);
}

int64_t samples_per_ray(const RaySamples& at) {
    return at.offsets ? at.samples / (at.rays < 1 ? 1 : at.rays) : at.samples;
}

constexpr int64_t kStepsOfRay = 256;  // through a grid, about

template <class T>
const VolumeKernels<T>& volume() {
    return *kernels<T>().volume;
}

}  // namespace

#define SDFGAN_LAUNCH(Parameters, count, size, function)                                 \
    template <class T>                                                                   \
    static void launch_(const Parameters<T>& p, const Where& where) {                    \
        split(count, size, where,                                                        \
              [&](int64_t begin, int64_t end) { volume<T>().function(p, begin, end); }); \
    }
SDFGAN_LAUNCH(Composite, p.at.rays, samples_per_ray(p.at), composite)
SDFGAN_LAUNCH(CompositeBackward, p.at.rays, samples_per_ray(p.at), composite_backward)
SDFGAN_LAUNCH(OverlapSums, p.rays, p.bins + p.other_bins, overlap_sums)
SDFGAN_LAUNCH(Distortion, p.rays, p.bins, distortion)
SDFGAN_LAUNCH(SamplePixels, p.count, 32, sample_pixels)
SDFGAN_LAUNCH(MarchCount, p.march.rays, kStepsOfRay, march_count)
SDFGAN_LAUNCH(MarchSamples, p.march.rays, kStepsOfRay, march_samples)
SDFGAN_LAUNCH(MarchReached, p.at.rays, samples_per_ray(p.at), march_reached)
SDFGAN_LAUNCH(FrustumGaussians, p.rays* p.samples, 6, frustum_gaussians)
SDFGAN_LAUNCH(IntegratedPositionalEncoding, p.points, 2 * p.octaves * p.dims,
              integrated_positional_encoding)
SDFGAN_LAUNCH(IntegratedDirectionalEncoding, p.count, p.width, integrated_directional_encoding)

#define SDFGAN_DEFINE(Parameters) \
    void launch(const Parameters& p, const Where& where) { launch_(p, where); }
SDFGAN_VOLUME_KERNELS(SDFGAN_DEFINE, float)
SDFGAN_VOLUME_KERNELS(SDFGAN_DEFINE, double)

}  // namespace sdfgan::cpu
