// Runs the CPU kernels: splits the work over threads and calls the table of the instruction set.
#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/table.h"

namespace sdfgan::cpu {

namespace {

constexpr int64_t kGrain = 4096;      // values per thread below which a second one does not pay
constexpr int64_t kPiece = 2048;      // entries that are compacted together
constexpr int64_t kStepsOfRay = 256;  // through a grid, about
constexpr int64_t kFilmSirenGrain = 2 * kTileGroups;  // groups per thread, likewise

// body(begin, end) on pieces of n elements of `size` values each.
template <class Body>
void split(int64_t n, int64_t size, const Where& where, const Body& body) {
    parallel_for(n, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, size)), where.threads, body);
}

int64_t samples_per_ray(const RaySamples& at) {
    return at.offsets ? at.samples / std::max<int64_t>(1, at.rays) : at.samples;
}

// Two passes over pieces of a fixed size: mark(keep, begin, end) counts what is kept, and then
// write(keep, begin, end, slot) writes a piece's where the pieces before it end. So the order never
// depends on the number of threads. Fills the rest of alive [size] and points [size, 3]; returns
// the count.
template <class T, class Mark, class Write>
int64_t compact(int64_t entries, int threads, int32_t* alive, T* points, int64_t size,
                const Mark& mark, const Write& write) {
    const int64_t pieces = (entries + kPiece - 1) / kPiece;
    const auto end_of = [&](int64_t piece) { return std::min((piece + 1) * kPiece, entries); };
    std::vector<uint8_t> keep(entries);
    std::vector<int64_t> slots(pieces + 1, 0);  // after the scan: where a piece's begin
    parallel_for(pieces, 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            slots[i + 1] = mark(keep.data(), i * kPiece, end_of(i));
        }
    });
    for (int64_t i = 0; i < pieces; ++i) slots[i + 1] += slots[i];
    parallel_for(pieces, 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) write(keep.data(), i * kPiece, end_of(i), slots[i]);
    });
    const int64_t count = slots[pieces];
    std::fill(alive + count, alive + size, count > 0 ? alive[count - 1] : 0);
    std::fill(points + 3 * count, points + 3 * size, T(0));
    return count;
}

// One evaluation of what is alive.
template <class P, class Advance, class Write>
void step(const P& p, const Where& where, Advance advance, Write write) {
    *p.count_out = static_cast<int32_t>(compact(
        std::clamp<int64_t>(*p.count, 0, p.entries), where.threads, p.alive_out, p.points,
        p.entries,
        [&](uint8_t* keep, int64_t begin, int64_t end) { return advance(p, keep, begin, end); },
        [&](const uint8_t* keep, int64_t begin, int64_t end, int64_t slot) {
            write(p, keep, begin, end, slot);
        }));
}

}  // namespace

#define SDFGAN_LAUNCH(Parameters, count, size, name)                                  \
    template <class T>                                                                \
    void launch(const Parameters<T>& p, const Where& where) {                         \
        split(count, size, where,                                                     \
              [&](int64_t begin, int64_t end) { kernels<T>().name(p, begin, end); }); \
    }
SDFGAN_LAUNCH(Composite, p.at.rays, samples_per_ray(p.at), composite)
SDFGAN_LAUNCH(CompositeBackward, p.at.rays, samples_per_ray(p.at), composite_backward)
SDFGAN_LAUNCH(Distortion, p.rays, p.bins, distortion)
SDFGAN_LAUNCH(FrustumGaussians, (p.rays * p.samples), 6, frustum_gaussians)
SDFGAN_LAUNCH(GenerateRays, p.rays, 2, generate_rays)
SDFGAN_LAUNCH(HashEncoding, p.grid.count, 16 * p.grid.levels, hash_encoding)
SDFGAN_LAUNCH(HashPointsGradient, p.grid.count, 16 * p.grid.levels, hash_points_gradient)
SDFGAN_LAUNCH(HashTableGradient, p.grid.levels, 16 * p.grid.count, hash_table_gradient)
SDFGAN_LAUNCH(IntegratedDirectionalEncoding, p.count, p.width, integrated_directional_encoding)
SDFGAN_LAUNCH(IntegratedPositionalEncoding, p.points, 2 * p.octaves * p.dims,
              integrated_positional_encoding)
SDFGAN_LAUNCH(LayerEdges, p.layers, 64, layer_edges)
SDFGAN_LAUNCH(LazyAdam, (p.count + kAdamLine - 1) / kAdamLine, kAdamLine, lazy_adam)
SDFGAN_LAUNCH(MarchCount, p.march.rays, kStepsOfRay, march_count)
SDFGAN_LAUNCH(MarchReached, p.at.rays, samples_per_ray(p.at), march_reached)
SDFGAN_LAUNCH(MarchSamples, p.march.rays, kStepsOfRay, march_samples)
SDFGAN_LAUNCH(OverlapSums, p.rays, p.bins + p.other_bins, overlap_sums)
SDFGAN_LAUNCH(PositionalEncoding, p.points, 2 * p.width, positional_encoding)
SDFGAN_LAUNCH(SamplePdf, p.rays, 2 * (p.bins + p.samples), sample_pdf)
SDFGAN_LAUNCH(SamplePixels, p.count, 32, sample_pixels)

template <class T>
void launch(const StartLevel<T>& p, const Where& where) {
    const int64_t rays = p.images * p.size * p.size;
    const auto& k = kernels<T>();
    *p.count = static_cast<int32_t>(compact(
        rays, where.threads, p.alive, p.points, rays,
        [&](uint8_t* keep, int64_t begin, int64_t end) {
            return k.level_start(p, keep, begin, end);
        },
        [&](const uint8_t* keep, int64_t begin, int64_t end, int64_t slot) {
            k.level_compact(p, keep, begin, end, slot);
        }));
}

template <class T>
void launch(const TraceStep<T>& p, const Where& where) {
    step(p, where, kernels<T>().trace_advance, kernels<T>().trace_compact);
}

template <class T>
void launch(const LayerStep<T>& p, const Where& where) {
    step(p, where, kernels<T>().layers_advance, kernels<T>().layers_compact);
}

template <class T>
void launch(const FilmSirenSample<T>& p, const Where& where) {
    std::vector<PointGroup> groups;
    const T nan = std::numeric_limits<T>::quiet_NaN();
    for (int64_t begin = 0, end = 0; begin < p.count; begin = end) {
        const int64_t image = p.image[begin];
        while (end < p.count && p.image[end] == image && end - begin < kGroup) ++end;
        if (image >= 0 && image < p.network.images) {
            groups.push_back({begin, end, image});
            continue;
        }
        std::fill(p.sdf + begin, p.sdf + end, nan);
        if (p.gradient) std::fill(p.gradient + 3 * begin, p.gradient + 3 * end, nan);
        if (p.texture) std::fill(p.texture + 3 * begin, p.texture + 3 * end, nan);
    }
    const int64_t count = static_cast<int64_t>(groups.size());
    parallel_for(count, kFilmSirenGrain, where.threads, [&](int64_t begin, int64_t end) {
        kernels<T>().film_siren(p, groups.data() + begin, end - begin);
    });
}

template <class T>
void launch(const FilmSirenTrace<T>& p, const Where& where) {
    kernels<T>().film_siren_trace(p, where.threads);
}

template <class T>
void launch(const Perceptron<T>& p, const Where& where) {
    kernels<T>().perceptron(p, where.threads);
}

template <class T>
void launch(const PerceptronBackward<T>& p, const Where& where) {
    kernels<T>().perceptron_backward(p, where.threads);
}

void run_threads(int threads, void* context, void (*begin)(void*, int), void (*body)(void*)) {
    run_threads(threads, [&](int count) { begin(context, count); }, [&] { body(context); });
}

double multiply_adds(int threads, bool bf16) {
    constexpr int64_t kRounds = 1 << 22;
    std::atomic<double> operations{0};
    run_threads(
        threads, [](int) {},
        [&] {
            const double done = table().multiply_adds(kRounds, bf16);
            for (double sum = operations; !operations.compare_exchange_weak(sum, sum + done);) {
            }
        });
    return operations;
}

bool openmp() {
#ifdef _OPENMP
    return true;
#else
    return false;
#endif
}

#define SDFGAN_INSTANTIATE(name, Parameters) SDFGAN_INSTANTIATE_LAUNCH(Parameters)
SDFGAN_KERNELS(SDFGAN_INSTANTIATE)
SDFGAN_INSTANTIATE_LAUNCH(Perceptron)
SDFGAN_INSTANTIATE_LAUNCH(PerceptronBackward)

}  // namespace sdfgan::cpu
