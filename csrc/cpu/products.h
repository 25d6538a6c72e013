// Products of matrices and the features of a tile of points of one image, for gradients. Unlike in
// cpu/film_siren.h a vector holds several features of one point: then W h, W^T u and u h^T are one
// kind of product, without transposition. Features are [width / kLanes, kTile, kLanes].
#pragma once

#include "cpu/film_siren.h"

namespace sdfgan::cpu {
namespace {

template <class T>
struct Products {
    using Real = typename Full<T>::Real;
    static constexpr int kLanes = kVectorBytes / sizeof(T);
    static constexpr int kBlock = kFeatures == 8 ? 12 : 6;  // points x 2 vectors of sums
    static constexpr int64_t kRow = kTile * kLanes;         // a vector of features of all points
    static_assert(kTile % kBlock == 0);

    explicit Products(int64_t width) : width_(width) {}

    static SDFGAN_INLINE void add(T* at, Real values) { store(at, load<Real>(at) + values); }

    static T sum_of(Real vector) {
        T values[kLanes];
        store(values, vector);
        for (int half = kLanes / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) values[i] += values[i + half];
        }
        return values[0];
    }

    // body(constant number of vectors, first output) for all outputs
    template <class Body>
    SDFGAN_INLINE void for_outputs(const Body& body) const {
        int64_t n = 0;
        for (; n + 2 * kLanes <= width_; n += 2 * kLanes) body(std::integral_constant<int, 2>(), n);
        if constexpr (kLanes > 8) {  // the width is a multiple of 16
            if (n < width_) body(std::integral_constant<int, 1>(), n);
        }
    }

    // finish(offset of a block in an array, its sums [kBlock][kVectors]) with the products of
    // outputs n, n + 1, ... and the features `in` of all points
    template <class Vectors, class Finish>
    SDFGAN_INLINE void product(Vectors, const T* panels, const T* in, int64_t n,
                               const Finish& finish) const {
        constexpr int kVectors = Vectors::value;
        const int64_t width = width_, panel = width * kLanes;
        const int points = points_;
        const T* const weights = panels + n * width;
        for (int point = 0; point < points; point += kBlock) {
            const T *a = in + point * kLanes, *w = weights;
            Real sum[kBlock][kVectors];
#pragma GCC unroll 12
            for (int i = 0; i < kBlock; ++i) {
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; ++v) sum[i][v] = Real{};
            }
            for (int64_t k = 0; k < width; k += kLanes, a += kRow, w += kLanes * kLanes) {
#pragma GCC unroll 16
                for (int j = 0; j < kLanes; ++j) {
                    Real row[kVectors];
#pragma GCC unroll 2
                    for (int v = 0; v < kVectors; ++v) {
                        row[v] = load<Real>(w + v * panel + j * kLanes);
                    }
#pragma GCC unroll 12
                    for (int i = 0; i < kBlock; ++i) {
#pragma GCC unroll 2
                        for (int v = 0; v < kVectors; ++v) {
                            sum[i][v] = sum[i][v] + row[v] * a[i * kLanes + j];
                        }
                    }
                }
            }
            finish(n * kTile + point * kLanes, sum);
        }
    }

    // body(vector, offset in an array, sum) for the sums of a block
    template <int kVectors, class Body>
    static SDFGAN_INLINE void for_sums(int64_t at, Real (&sum)[kBlock][kVectors],
                                       const Body& body) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 12
            for (int i = 0; i < kBlock; ++i) body(v, at + v * kRow + i * kLanes, sum[i][v]);
        }
    }

    // m[k][n] += sum over the points of a[n] b[k], and of the tangents' if there are any: kVectors
    // vectors of inputs k, all outputs n
    template <class Vectors, class Tangent>
    SDFGAN_INLINE void outer_columns(Vectors, Tangent, const T* a, const T* b, const T* a_tangent,
                                     const T* b_tangent, T* m) const {
        constexpr int kVectors = Vectors::value;
        constexpr bool kTangent = Tangent::value;
        const int64_t width = width_;
        const int points = points_;
        for (int64_t n = 0; n < width; n += kFeatures) {
            const int64_t outputs = n / kLanes * kRow + n % kLanes;
            Real sum[kFeatures][kVectors];
#pragma GCC unroll 8
            for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
                for (int v = 0; v < kVectors; ++v) {
                    sum[f][v] = load<Real>(m + (v * width + n + f) * kLanes);
                }
            }
            for (int side = 0; side < (kTangent ? 2 : 1); ++side) {
                const T *const output = (side ? a_tangent : a) + outputs,
                               *in = side ? b_tangent : b;
#pragma GCC unroll 2
                for (int i = 0; i < points; ++i) {
                    Real input[kVectors];
#pragma GCC unroll 3
                    for (int v = 0; v < kVectors; ++v) {
                        input[v] = load<Real>(in + v * kRow + i * kLanes);
                    }
#pragma GCC unroll 8
                    for (int f = 0; f < kFeatures; ++f) {
                        const T value = output[f / kLanes * kRow + f % kLanes + i * kLanes];
#pragma GCC unroll 3
                        for (int v = 0; v < kVectors; ++v) {
                            sum[f][v] = sum[f][v] + input[v] * value;
                        }
                    }
                }
            }
#pragma GCC unroll 8
            for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
                for (int v = 0; v < kVectors; ++v) {
                    store(m + (v * width + n + f) * kLanes, sum[f][v]);
                }
            }
        }
    }

    const int64_t width_;
    int points_ = 0;  // of the tile, rounded up to whole blocks
};

}  // namespace
}  // namespace sdfgan::cpu
