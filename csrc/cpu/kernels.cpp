// The CPU loops around core/, compiled once per instruction set (SDFGAN_SIMD names it). Nothing but
// the table leaves this file: see SDFGAN_HD for why.
#include "core/encoding.h"
#include "core/pdf.h"
#include "core/rays.h"
#include "core/trace.h"
#include "cpu/volume.h"

#define SDFGAN_TEXT_(a) #a
#define SDFGAN_TEXT(a) SDFGAN_TEXT_(a)

namespace sdfgan::cpu {

// film_siren.cpp and film_siren_trace.cpp of the same instruction set.
void SDFGAN_LEVEL(film_siren_f32_)(const FilmSirenSample<float>&, const PointGroup*, int64_t);
void SDFGAN_LEVEL(film_siren_f64_)(const FilmSirenSample<double>&, const PointGroup*, int64_t);
void SDFGAN_LEVEL(film_siren_trace_f32_)(const FilmSirenTrace<float>&, int);
void SDFGAN_LEVEL(film_siren_trace_f64_)(const FilmSirenTrace<double>&, int);
double SDFGAN_LEVEL(multiply_adds_)(int64_t, bool);
void SDFGAN_LEVEL(perceptron_)(const Perceptron<float>&, int64_t, int64_t);
void SDFGAN_LEVEL(perceptron_)(const Perceptron<double>&, int64_t, int64_t);
void SDFGAN_LEVEL(hash_encoding_)(const HashEncoding<float>&, int64_t, int64_t);
void SDFGAN_LEVEL(hash_encoding_)(const HashEncoding<double>&, int64_t, int64_t);
void SDFGAN_LEVEL(hash_points_gradient_)(const HashPointsGradient<float>&, int64_t, int64_t);
void SDFGAN_LEVEL(hash_points_gradient_)(const HashPointsGradient<double>&, int64_t, int64_t);
void SDFGAN_LEVEL(hash_table_gradient_)(const HashTableGradient<float>&, int64_t, int64_t);
void SDFGAN_LEVEL(hash_table_gradient_)(const HashTableGradient<double>&, int64_t, int64_t);
void SDFGAN_LEVEL(mesh_distance_)(const MeshDistance&, const int32_t*, int64_t, int64_t);
// volume.cpp
extern const VolumeKernels<float> SDFGAN_LEVEL(volume_f32_);
extern const VolumeKernels<double> SDFGAN_LEVEL(volume_f64_);

namespace {

// Coordinates go through in tiles: scaling and sines vectorise, scattering to the rows follows.
template <bool kTimesPi, class T>
void encode_points(const PositionalEncoding<T>& p, int64_t begin, int64_t end) {
    constexpr int64_t kTile = 64;
    T scaled[kTile], sine[kTile], cosine[kTile];
    T* target[kTile];
    for (int64_t start = begin * p.dims; start < end * p.dims; start += kTile) {
        const int64_t n = min_of(kTile, end * p.dims - start);
        for (int64_t i = 0; i < n; ++i) {
            const int64_t point = (start + i) / p.dims, dim = (start + i) % p.dims;
            scaled[i] = p.x[start + i];
            target[i] = p.out + point * p.width + dim;
            if (p.include_input) {
                *target[i] = scaled[i];
                target[i] += p.dims;
            }
        }
        for (int octave = 0; octave < p.octaves; ++octave) {
            for (int64_t i = 0; i < n; ++i) {
                encode<kTimesPi>(scaled[i], sine[i], cosine[i]);
            }
            for (int64_t i = 0; i < n; ++i) {
                target[i][0] = sine[i];
                target[i][p.dims] = cosine[i];
                target[i] += 2 * p.dims;
                scaled[i] *= 2;
            }
        }
    }
}

template <class T>
void positional_encoding(const PositionalEncoding<T>& p, int64_t begin, int64_t end) {
    p.times_pi ? encode_points<true>(p, begin, end) : encode_points<false>(p, begin, end);
}

template <class T>
void sample_pdf(const SamplePdf<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) sample_pdf_ray(p, ray);
}

template <class T>
void generate_rays(const GenerateRays<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) generate_ray(p, ray);
}

template <class T>
int64_t level_start(const StartLevel<T>& p, uint8_t* keep, int64_t begin, int64_t end) {
    int64_t marching = 0;
    for (int64_t ray = begin; ray < end; ++ray) {
        keep[ray] = start_ray(p, ray);
        marching += keep[ray];
    }
    return marching;
}

template <class T>
void level_compact(const StartLevel<T>& p, const uint8_t* keep, int64_t begin, int64_t end,
                   int64_t slot) {
    for (int64_t ray = begin; ray < end; ++ray) {
        if (!keep[ray]) continue;
        p.alive[slot] = static_cast<int32_t>(ray);
        first_point(p, slot);
        ++slot;
    }
}

template <class T>
int64_t trace_advance(const TraceStep<T>& p, uint8_t* keep, int64_t begin, int64_t end) {
    int64_t survivors = 0;
    for (int64_t entry = begin; entry < end; ++entry) {
        keep[entry] = trace_ray(p, entry);
        survivors += keep[entry];
    }
    return survivors;
}

template <class T>
void trace_compact(const TraceStep<T>& p, const uint8_t* keep, int64_t begin, int64_t end,
                   int64_t slot) {
    for (int64_t entry = begin; entry < end; ++entry) {
        if (!keep[entry]) continue;
        p.alive_out[slot] = p.alive[entry];
        next_point(p, slot);
        ++slot;
    }
}

}  // namespace

#ifdef __AVX512BF16__
constexpr bool kBf16 = true;
#else
constexpr bool kBf16 = false;
#endif

extern const Table SDFGAN_LEVEL(table_) = {
    SDFGAN_TEXT(SDFGAN_SIMD),
    kBf16,
    {positional_encoding<float>, sample_pdf<float>, generate_rays<float>, level_start<float>,
     level_compact<float>, trace_advance<float>, trace_compact<float>,
     SDFGAN_LEVEL(film_siren_f32_), SDFGAN_LEVEL(film_siren_trace_f32_),
     SDFGAN_LEVEL(hash_encoding_), SDFGAN_LEVEL(hash_points_gradient_),
     SDFGAN_LEVEL(hash_table_gradient_), &SDFGAN_LEVEL(volume_f32_), SDFGAN_LEVEL(perceptron_)},
    {positional_encoding<double>, sample_pdf<double>, generate_rays<double>, level_start<double>,
     level_compact<double>, trace_advance<double>, trace_compact<double>,
     SDFGAN_LEVEL(film_siren_f64_), SDFGAN_LEVEL(film_siren_trace_f64_),
     SDFGAN_LEVEL(hash_encoding_), SDFGAN_LEVEL(hash_points_gradient_),
     SDFGAN_LEVEL(hash_table_gradient_), &SDFGAN_LEVEL(volume_f64_), SDFGAN_LEVEL(perceptron_)},
    SDFGAN_LEVEL(multiply_adds_),
    SDFGAN_LEVEL(mesh_distance_),
};

}  // namespace sdfgan::cpu
