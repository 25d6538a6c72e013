// The CPU kernels as a table of functions, one table per instruction set; each function works on
// the elements [begin, end).
#pragma once

#include "kernels.h"

namespace sdfgan::cpu {

constexpr int kFilmSirenTile = 32;  // points that go through the network together

struct FilmSirenTile {  // at most kFilmSirenTile points of one image
    int64_t begin, end, image;
};

template <class T>
struct Kernels {
    void (*positional_encoding)(const PositionalEncoding<T>&, int64_t begin, int64_t end);
    void (*sample_pdf)(const SamplePdf<T>&, int64_t begin, int64_t end);
    void (*generate_rays)(const GenerateRays<T>&, int64_t begin, int64_t end);
    // Advances the rays of the entries and returns how many go on; survivors are marked in `keep`.
    int64_t (*trace_advance)(const TraceStep<T>&, uint8_t* keep, int64_t begin, int64_t end);
    // Writes the survivors among the entries to alive_out and points from `slot` on.
    void (*trace_compact)(const TraceStep<T>&, const uint8_t* keep, int64_t begin, int64_t end,
                          int64_t slot);
    // Works on tiles [begin, end); scratch holds 2 * width * kFilmSirenTile values.
    void (*film_siren)(const FilmSiren<T>&, const FilmSirenTile*, int64_t begin, int64_t end,
                       T* scratch);
};

struct Table {
    const char* name;
    Kernels<float> f32;
    Kernels<double> f64;
};

extern const Table table_base, table_avx2, table_avx512;

const Table& table();  // the one in use

template <class T>
const Kernels<T>& kernels() {
    if constexpr (sizeof(T) == sizeof(float)) {
        return table().f32;
    } else {
        return table().f64;
    }
}

}  // namespace sdfgan::cpu
