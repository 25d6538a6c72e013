// CUDA launches of the kernels whose elements are independent: one thread per coordinate or ray; to
// a ray that is sampled, a warp.
#include "core/encoding.h"
#include "core/pdf.h"
#include "core/rays.h"
#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace sdfgan::cuda {
namespace {

template <bool kTimesPi, class T>
__device__ __forceinline__ void encode_coordinate(const PositionalEncoding<T>& p, T scaled,
                                                  T* target) {
    if (p.include_input) {
        *target = scaled;
        target += p.dims;
    }
    for (int octave = 0; octave < p.octaves; ++octave) {
        T sine, cosine;
        encode<kTimesPi>(scaled, sine, cosine);
        target[0] = sine;
        target[p.dims] = cosine;
        target += 2 * p.dims;
        scaled *= 2;
    }
}

template <bool kTimesPi, class T>
struct EncodeCoordinate {
    PositionalEncoding<T> p;
    __device__ void operator()(int64_t i) const {
        encode_coordinate<kTimesPi>(p, p.x[i], p.out + i / p.dims * p.width + i % p.dims);
    }
};

constexpr int kEncodeThreads = 128;

// `tile` points at a time, a multiple of 4: a thread has a coordinate and writes far apart, so rows
// are made in shared memory and leave it in one piece.
template <bool kTimesPi, class T>
__global__ void __launch_bounds__(kEncodeThreads)
    encode_points_kernel(PositionalEncoding<T> p, int tile) {
    T* const rows = reinterpret_cast<T*>(shared_memory());
    const int dims = static_cast<int>(p.dims), width = static_cast<int>(p.width);
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * tile; first < p.points;
         first += static_cast<int64_t>(gridDim.x) * tile) {
        const int points = static_cast<int>(min_of<int64_t>(tile, p.points - first));
        for (int i = threadIdx.x; i < points * dims; i += kEncodeThreads) {
            const int point = i / dims;
            encode_coordinate<kTimesPi>(p, p.x[first * dims + i],
                                        rows + point * width + (i - point * dims));
        }
        __syncthreads();
        T* const target = p.out + first * width;
        int copied = 0;
        if constexpr (sizeof(T) == sizeof(float)) {
            copied = points * width / 4 * 4;
            for (int i = threadIdx.x; i < copied / 4; i += kEncodeThreads) {
                reinterpret_cast<float4*>(target)[i] = reinterpret_cast<const float4*>(rows)[i];
            }
        }
        for (int i = copied + threadIdx.x; i < points * width; i += kEncodeThreads) {
            target[i] = rows[i];
        }
        __syncthreads();
    }
}

template <bool kTimesPi, class T>
void encode_points(const PositionalEncoding<T>& p, const Where& where) {
    if (p.points * p.width == 0) return;
    constexpr int64_t kBytes = 24 << 10, kMaxBlocks = 1 << 20;
    const int64_t row = p.width * static_cast<int64_t>(sizeof(T));
    const int64_t tile = min_of(kEncodeThreads / p.dims, kBytes / row) / 4 * 4;
    if (tile == 0 || reinterpret_cast<uintptr_t>(p.out) % 16) {
        for_each("positional_encoding", p.points * p.dims, where, EncodeCoordinate<kTimesPi, T>{p});
        return;
    }
    const int64_t blocks = min_of((p.points + tile - 1) / tile, kMaxBlocks);
    check(launch_kernel(encode_points_kernel<kTimesPi, T>, blocks, kEncodeThreads,
                        static_cast<int>(tile * row), where.stream, p, static_cast<int>(tile)),
          "positional_encoding");
}

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

template <class T>
struct GenerateRay {
    GenerateRays<T> p;
    __device__ void operator()(int64_t ray) const { generate_ray(p, ray); }
};

}  // namespace

template <class T>
void launch(const PositionalEncoding<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    p.times_pi ? encode_points<true>(p, where) : encode_points<false>(p, where);
}

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

template <class T>
void launch(const GenerateRays<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("generate_rays", p.rays, where, GenerateRay<T>{p});
}

template void launch(const PositionalEncoding<float>&, const Where&);
template void launch(const PositionalEncoding<double>&, const Where&);
template void launch(const SamplePdf<float>&, const Where&);
template void launch(const SamplePdf<double>&, const Where&);
template void launch(const GenerateRays<float>&, const Where&);
template void launch(const GenerateRays<double>&, const Where&);

}  // namespace sdfgan::cuda
