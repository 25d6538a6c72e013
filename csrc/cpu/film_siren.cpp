// FiLM-SIREN evaluation, compiled once per instruction set (SDFGAN_SIMD names it): a tile of points
// goes through all layers while its features stay in the first-level cache. A vector holds one
// feature of several points; weights are broadcast from the row-major matrix of the image.
#include <cmath>
#include <cstring>

#include "core/sine.h"
#include "cpu/table.h"

#define SDFGAN_JOIN_(a, b) a##b
#define SDFGAN_JOIN(a, b) SDFGAN_JOIN_(a, b)

namespace sdfgan::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kFeatures = 8;  // kFeatures x kVectors accumulators fill the registers
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kFeatures = 4;
#else
constexpr int kVectorBytes = 16;
constexpr int kFeatures = 4;
#endif
constexpr int kVectors = 2;

template <class T>
struct Vector;
template <>
struct Vector<float> {
    typedef float Real __attribute__((vector_size(kVectorBytes)));
    typedef int32_t Bits __attribute__((vector_size(kVectorBytes)));
    static inline Real sine(Real x) { return sdfgan::sine<Real, Bits>(x); }
};
template <>
struct Vector<double> {
    typedef double Real __attribute__((vector_size(kVectorBytes)));
    static inline Real sine(Real x) {
        for (int i = 0; i < kVectorBytes / 8; ++i) x[i] = std::sin(x[i]);
        return x;
    }
};

template <class V, class T>
inline V load(const T* address) {
    V v;
    std::memcpy(&v, address, sizeof(V));
    return v;
}

// y[f][point] = sin(shift[f] + sum_k weight[f][k] x[k][point])
template <class T>
inline void sine_layer(const T* weight, const T* shift, int64_t inputs, int64_t width, const T* x,
                       T* y) {
    using V = typename Vector<T>::Real;
    constexpr int kLanes = kVectorBytes / sizeof(T);
    static_assert(kFilmSirenTile % (kVectors * kLanes) == 0, "a tile is whole vectors");
    for (int lane = 0; lane < kFilmSirenTile; lane += kVectors * kLanes) {
        for (int64_t feature = 0; feature < width; feature += kFeatures) {
            // Every loop over these is unrolled whole, or they would live in memory instead of registers.
            V sum[kFeatures][kVectors];
#pragma GCC unroll 8
            for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; ++v) sum[f][v] = V{} + shift[feature + f];
            }
            const T* w = weight + feature * inputs;
            for (int64_t k = 0; k < inputs; ++k) {
                V in[kVectors];
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; ++v) {
                    in[v] = load<V>(x + k * kFilmSirenTile + lane + v * kLanes);
                }
#pragma GCC unroll 8
                for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 2
                    for (int v = 0; v < kVectors; ++v) sum[f][v] += in[v] * w[f * inputs + k];
                }
            }
#pragma GCC unroll 8
            for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; ++v) {
                    const V out = Vector<T>::sine(sum[f][v]);
                    T* const row = y + (feature + f) * kFilmSirenTile;
                    std::memcpy(row + lane + v * kLanes, &out, sizeof(V));
                }
            }
        }
    }
}

template <class T>
inline void film_siren(const FilmSiren<T>& p, const FilmSirenTile* tiles, int64_t begin,
                       int64_t end, T* scratch) {
    T* const buffers[2] = {scratch, scratch + p.width * kFilmSirenTile};
    for (int64_t i = begin; i < end; ++i) {
        const FilmSirenTile tile = tiles[i];
        T* x = buffers[0];
        for (int64_t lane = 0; lane < kFilmSirenTile; ++lane) {
            // Lanes past the end repeat the last point.
            const int64_t point = min_of(tile.begin + lane, tile.end - 1);
            for (int axis = 0; axis < 3; ++axis) {
                x[axis * kFilmSirenTile + lane] = p.points[3 * point + axis];
            }
        }
        int64_t inputs = 3;
        for (int layer = 0; layer < p.layers; ++layer) {
            T* const y = buffers[(layer + 1) % 2];
            sine_layer(p.weights[layer] + tile.image * p.width * inputs,
                       p.shifts[layer] + tile.image * p.width, inputs, p.width, x, y);
            x = y;
            inputs = p.width;
        }
        T sum[kFilmSirenTile] = {};
        for (int64_t k = 0; k < p.width; ++k) {
            for (int lane = 0; lane < kFilmSirenTile; ++lane) {
                sum[lane] += p.head[k] * x[k * kFilmSirenTile + lane];
            }
        }
        std::memcpy(p.out + tile.begin, sum, (tile.end - tile.begin) * sizeof(T));
    }
}

}  // namespace

// Plain functions: kernels.cpp puts them into the table of this instruction set.
void SDFGAN_JOIN(film_siren_f32_, SDFGAN_SIMD)(const FilmSiren<float>& p,
                                               const FilmSirenTile* tiles, int64_t begin,
                                               int64_t end, float* scratch) {
    film_siren(p, tiles, begin, end, scratch);
}
void SDFGAN_JOIN(film_siren_f64_, SDFGAN_SIMD)(const FilmSiren<double>& p,
                                               const FilmSirenTile* tiles, int64_t begin,
                                               int64_t end, double* scratch) {
    film_siren(p, tiles, begin, end, scratch);
}

}  // namespace sdfgan::cpu
