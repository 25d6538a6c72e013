// Inverse-transform sampling on CUDA: a warp per ray.
#include "core/pdf.h"
#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct SampleRay {
    SamplePdf<T> p;
    __device__ void operator()(int64_t ray) const { sample_pdf_ray(p, ray); }
};

constexpr int kPdfThreads = 128;
constexpr int64_t kMaxPdfBins = 512;
constexpr double kLeastDouble = 4.9406564584124654e-324;  // above 0

// What a warp of sample_pdf_kernel has in shared memory: where each bin ends in the cumulative
// distribution, for a power of two of bins; and the edges.
template <class T>
SDFGAN_HD int64_t pdf_bytes(int64_t bins, int64_t padded) {
    const int64_t size = sizeof(double), edges = (bins + 1) * static_cast<int64_t>(sizeof(T));
    return padded * size + (edges + size - 1) / size * size;
}

// A warp per ray: lanes sum up the weights, then each looks up samples of its own. As in
// sample_pdf_ray, u = 1 ends in the last bin with weight, and bins without weight have no samples:
// they end where the one before does. Sums of lanes round differently from bin to bin, so no bin is
// let end before the one before it.
template <class T>
__global__ void __launch_bounds__(kPdfThreads) sample_pdf_kernel(SamplePdf<T> p, int padded) {
    const int bins = static_cast<int>(p.bins);
    double* const ends = reinterpret_cast<double*>(
        shared_memory() + threadIdx.x / kWarp * pdf_bytes<T>(bins, padded));
    T* const edges = reinterpret_cast<T*>(ends + padded);
    const auto plus = [](double before, double own) { return before + own; };
    const auto larger = [](double before, double own) { return max_of(before, own); };
    for_rays<kWarp>(p.rays, [&](int64_t ray, int lane) {
        const T* const weights = p.weights + ray * bins;
        for (int j = lane; j <= bins; j += kWarp) edges[j] = p.edges[ray * (bins + 1) + j];
        double all = 0;
        for (int bin = lane; bin < bins; bin += kWarp) all += usable_weight(weights[bin]);
        all = __shfl_sync(kAllLanes, scan_of_lanes<kWarp>(all, plus), kWarp - 1);
        const double scale = scale_of_weights(all);
        double sum = 0, total = 0;
        for (int first = 0; first < padded; first += kWarp) {
            const int bin = first + lane;
            const double weight = bin < bins ? scale * usable_weight(weights[bin]) : 0;
            sum += scan_of_lanes<kWarp>(weight, plus);
            const double end = max_of(total, scan_of_lanes<kWarp>(weight > 0 ? sum : 0, larger));
            if (bin < padded) ends[bin] = end;
            sum = __shfl_sync(kAllLanes, sum, kWarp - 1);
            total = __shfl_sync(kAllLanes, end, kWarp - 1);
        }
        __syncwarp();
        const bool uniform = total == 0;
        for (int64_t i = lane; i < p.samples; i += kWarp) {
            const T u = min_of(max_of(read_only(p.u + ray * p.u_stride + i), T(0)), T(1));
            const double target = u * (uniform ? 1 : total);
            // the first bin with an end that is neither 0 nor before target
            const double wanted = max_of(target, kLeastDouble);
            int bin = 0;
            for (int step = padded / 2; step > 0 && !uniform; step /= 2) {
                bin += ends[bin + step - 1] < wanted ? step : 0;
            }
            const double below = bin == 0 ? 0 : ends[bin - 1];
            const T left = edges[bin], right = edges[uniform ? bins : bin + 1];
            const T weight = uniform ? T(1) : read_only(weights + bin);
            const T share = scale == 1 ? static_cast<T>(target - below) / weight
                                       : static_cast<T>((target - below) / (scale * weight));
            const T at = left + (right - left) * min_of(share, T(1));
            p.out[ray * p.samples + i] = min_of(at, right);  // rounding may pass `right`
        }
        __syncwarp();
    });
}

}  // namespace

template <class T>
void launch(const SamplePdf<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    if (p.bins > kMaxPdfBins) {
        for_each("sample_pdf", p.rays, where, SampleRay<T>{p});
    } else if (p.rays > 0) {
        int padded = 1;
        while (padded < p.bins) padded *= 2;
        const int64_t bytes = pdf_bytes<T>(p.bins, padded) * (kPdfThreads / kWarp);
        check(launch_kernel(sample_pdf_kernel<T>, blocks_of_rays<kWarp>(p.rays, kPdfThreads),
                            kPdfThreads, static_cast<int>(bytes), where.stream, p, padded),
              "sample_pdf");
    }
}

SDFGAN_INSTANTIATE_LAUNCH(SamplePdf)

}  // namespace sdfgan::cuda
