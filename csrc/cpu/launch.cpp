// Runs the CPU kernels: splits the work over threads and calls the table of the instruction set.
#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/table.h"

namespace sdfgan::cpu {

constexpr int64_t kGrain = 2048;  // values per thread below which a second thread does not pay
constexpr int64_t kFilmSirenGrain = 4;  // tiles, likewise

template <class T>
void launch(const PositionalEncoding<T>& p, const Where& where) {
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, p.width));
    parallel_for(p.points, grain, where.threads, [&](int64_t begin, int64_t end) {
        kernels<T>().positional_encoding(p, begin, end);
    });
}

template <class T>
void launch(const SamplePdf<T>& p, const Where& where) {
    const int64_t grain = std::max<int64_t>(1, kGrain / (p.bins + p.samples));
    parallel_for(p.rays, grain, where.threads,
                 [&](int64_t begin, int64_t end) { kernels<T>().sample_pdf(p, begin, end); });
}

template <class T>
void launch(const GenerateRays<T>& p, const Where& where) {
    parallel_for(p.rays, kGrain, where.threads,
                 [&](int64_t begin, int64_t end) { kernels<T>().generate_rays(p, begin, end); });
}

// Two passes over pieces of a fixed size: advance and count, then write each piece's survivors
// where the pieces before it end. So the order never depends on the number of threads.
template <class T>
void launch(const TraceStep<T>& p, const Where& where) {
    const int64_t entries = std::clamp<int64_t>(*p.count, 0, p.entries);
    const int64_t pieces = (entries + kGrain - 1) / kGrain;
    const auto end_of = [&](int64_t piece) { return std::min((piece + 1) * kGrain, entries); };
    std::vector<uint8_t> keep(entries);
    std::vector<int64_t> slots(pieces + 1, 0);  // after the scan: where a piece's survivors begin
    parallel_for(pieces, 1, where.threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            slots[i + 1] = kernels<T>().trace_advance(p, keep.data(), i * kGrain, end_of(i));
        }
    });
    for (int64_t i = 0; i < pieces; ++i) slots[i + 1] += slots[i];
    parallel_for(pieces, 1, where.threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            kernels<T>().trace_compact(p, keep.data(), i * kGrain, end_of(i), slots[i]);
        }
    });
    *p.count_out = static_cast<int32_t>(slots[pieces]);
    std::fill(p.alive_out + slots[pieces], p.alive_out + p.entries, 0);
    std::fill(p.points + 3 * slots[pieces], p.points + 3 * p.entries, T(0));
}

template <class T>
void launch(const FilmSiren<T>& p, const Where& where) {
    std::vector<FilmSirenTile> tiles;
    for (int64_t begin = 0, end = 0; begin < p.count; begin = end) {
        const int64_t image = p.image[begin];
        while (end < p.count && p.image[end] == image && end - begin < kFilmSirenTile) ++end;
        if (image >= 0 && image < p.images) {
            tiles.push_back({begin, end, image});
        } else {
            std::fill(p.out + begin, p.out + end, std::numeric_limits<T>::quiet_NaN());
        }
    }
    const int64_t count = static_cast<int64_t>(tiles.size());
    parallel_for(count, kFilmSirenGrain, where.threads, [&](int64_t begin, int64_t end) {
        std::vector<T> scratch(2 * std::max<int64_t>(p.width, 3) * kFilmSirenTile);
        kernels<T>().film_siren(p, tiles.data(), begin, end, scratch.data());
    });
}

bool openmp() {
#ifdef _OPENMP
    return true;
#else
    return false;
#endif
}

#define SDFGAN_INSTANTIATE(T)                                         \
    template void launch(const FilmSiren<T>&, const Where&);          \
    template void launch(const PositionalEncoding<T>&, const Where&); \
    template void launch(const SamplePdf<T>&, const Where&);          \
    template void launch(const GenerateRays<T>&, const Where&);       \
    template void launch(const TraceStep<T>&, const Where&);
SDFGAN_INSTANTIATE(float)
SDFGAN_INSTANTIATE(double)

}  // namespace sdfgan::cpu
