// A FiLM-SIREN on a tile of points, whose features stay in cache through all layers. Compiled once
// per instruction set. A vector holds one feature of several points and weights are broadcast, so
// that all images share one copy of the weights: FiLM is applied to the finished sums. Points come
// in groups of 16 of one image; a tile is up to three groups.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

#include "core/sine.h"
#include "cpu/table.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define SDFGAN_INLINE inline __attribute__((always_inline))

// Everything is in an unnamed namespace: with external linkage the linker would merge the copies of
// the instruction sets.
namespace sdfgan::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kFeatures = 8;  // sums of kFeatures x up to 3 vectors fill the registers
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kFeatures = 4;
#else
constexpr int kVectorBytes = 16;
constexpr int kFeatures = 4;
#endif
constexpr int kPanel = 8;

typedef int32_t Bits __attribute__((vector_size(kVectorBytes)));
typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef double Doubles __attribute__((vector_size(kVectorBytes)));

template <class V>
SDFGAN_HD V load(const void* address) {
    V v;
    std::memcpy(&v, address, sizeof(V));
    return v;
}

template <class V>
SDFGAN_HD void store(void* address, V v) {
    std::memcpy(address, &v, sizeof(V));
}

SDFGAN_HD Floats sine_of(Floats x) { return sine<Floats, Bits>(x); }
SDFGAN_HD Floats cosine_of(Floats x) { return cosine<Floats, Bits>(x); }
SDFGAN_HD Doubles sine_of(Doubles x) {
    for (int i = 0; i < kVectorBytes / 8; ++i) x[i] = std::sin(x[i]);
    return x;
}
SDFGAN_HD Doubles cosine_of(Doubles x) {
    for (int i = 0; i < kVectorBytes / 8; ++i) x[i] = std::cos(x[i]);
    return x;
}

// How the features between layers are stored and multiplied: as they are ...
template <class T>
struct Full {
    using Real = std::conditional_t<sizeof(T) == 4, Floats, Doubles>;
    using Stored = T;                // what a lane holds of a row
    static constexpr int kPack = 1;  // features in a row
    static SDFGAN_INLINE Real multiply_add(Real sum, Real x, T weight) { return sum + x * weight; }
    static SDFGAN_INLINE Real sine(Real x) { return sine_of(x); }
    static SDFGAN_INLINE void put(T* row, const Real* features) { store(row, features[0]); }
};

// ... or two features in a lane as bfloat16, the lower one in the lower half; sums are float.
struct Bf16 {
    using Real = Floats;
    using Stored = uint32_t;
    static constexpr int kPack = 2;
    static SDFGAN_INLINE Floats sine(Floats x) { return short_sine<Floats, Bits>(x); }
#ifdef __AVX512BF16__
    static SDFGAN_INLINE Floats multiply_add(Floats sum, Floats x, uint32_t weight) {
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x,
                                        (__m512bh)_mm512_set1_epi32(weight));
    }
    static SDFGAN_INLINE void put(uint32_t* row, const Floats* features) {
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)features[1], (__m512)features[0]);
        const __m512i interleave =
            _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                             22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        store(row, _mm512_permutexvar_epi16(interleave, both));
    }
#else
    static SDFGAN_INLINE Floats multiply_add(Floats sum, Floats x, uint32_t weight) {
        const Bits bits = (Bits)x, w = Bits{} + static_cast<int32_t>(weight), high = Bits{} - 65536;
        return sum + (Floats)(bits << 16) * (Floats)(w << 16) +
               (Floats)(bits & high) * (Floats)(w & high);
    }
    static SDFGAN_INLINE Bits round(Floats x) {  // to nearest, ties to even; in the upper half
        const Bits bits = (Bits)x, odd = (bits >> 16) & 1;
        return bits + 0x7fff + odd;
    }
    static SDFGAN_INLINE void put(uint32_t* row, const Floats* features) {
        const Bits high = Bits{} - 65536;
        store(row, (round(features[1]) & high) | ((round(features[0]) >> 16) & 0xffff));
    }
#endif
};

// On a multiple of a cache line.
struct Memory {
    explicit Memory(size_t bytes) : address(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {
        if (!address) throw std::bad_alloc();
    }
    ~Memory() { std::free(address); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    void* const address;
};

// Evaluates tiles. T is float or double; Form is Full<T> or Bf16.
template <class T, class Form>
class Evaluator {
    using Real = typename Form::Real;
    using Stored = typename Form::Stored;
    static constexpr int kLanes = kVectorBytes / sizeof(T);
    static constexpr int kGroupVectors = kGroup / kLanes;

  public:
    explicit Evaluator(const FilmSiren<T>& network)
        : p_(network),
          layers_(network.trunk_layers + network.sdf_layers + network.texture_layers),
          row_(network.width * kTile),
          // two buffers, the phases of trunk and sdf, the trunk's features
          memory_((3 + network.trunk_layers + network.sdf_layers) * row_ * sizeof(T)),
          buffers_{static_cast<T*>(memory_.address), static_cast<T*>(memory_.address) + row_},
          phases_(buffers_[1] + row_) {}

    // sdf[lane] at the points x[axis][lane] of `groups` groups, the images of which are image[].
    void sdf(const T (*x)[kTile], const int64_t* image, int groups, T* sdf) {
        const int last = p_.trunk_layers + p_.sdf_layers - 1;
        set_images(image, groups);
        first_layer<false>(x, buffers_[0]);
        for (int layer = 1; layer <= last; ++layer) sine_layer<false>(layer, layer == last);
        head(p_.sdf_head, buffer(last), sdf);
        add_prior(x, sdf);
    }

    // As sdf(), with gradient[axis][lane] and texture[channel][lane] unless they are null.
    void sample(const T (*x)[kTile], const int64_t* image, int groups, T* sdf, T (*gradient)[kTile],
                T (*texture)[kTile]) {
        const int trunk = p_.trunk_layers, last = trunk + p_.sdf_layers - 1;
        set_images(image, groups);
        first_layer<true>(x, buffers_[0]);
        for (int layer = 1; layer < trunk; ++layer) sine_layer<true>(layer, false);
        if (texture) std::memcpy(trunk_features(), buffer(trunk - 1), row_ * sizeof(T));
        for (int layer = trunk; layer <= last; ++layer) sine_layer<true>(layer, layer == last);
        head(p_.sdf_head, buffer(last), sdf);
        add_prior(x, sdf);
        if (gradient) backward(x, last, gradient);
        if (texture) {
            const int end = last + p_.texture_layers;
            std::memcpy(buffer(last), trunk_features(), row_ * sizeof(T));
            for (int layer = last + 1; layer <= end; ++layer)
                sine_layer<false>(layer, layer == end);
            for (int i = 0; i < 3; ++i) {
                head(p_.texture_head + i * p_.width, buffer(end), texture[i]);
            }
        }
    }

  private:
    // Layer l reads buffer(l - 1) and writes buffer(l).
    T* buffer(int layer) { return buffers_[layer & 1]; }
    T* phases(int layer) { return phases_ + layer * row_; }
    T* trunk_features() { return phases(p_.trunk_layers + p_.sdf_layers); }

    void set_images(const int64_t* image, int groups) {
        groups_ = groups;
        for (int g = 0; g < groups; ++g) film_[g] = image[g] * layers_ * p_.width;
    }

    const T* scale(int layer, int lane) {
        return p_.scale + film_[lane / kGroup] + layer * p_.width;
    }
    const T* shift(int layer, int lane) {
        return p_.shift + film_[lane / kGroup] + layer * p_.width;
    }

    // body(constant number of vectors, first lane) for all vectors, as many at a time as divide
    // them
    template <class Body>
    SDFGAN_INLINE void for_vectors(int groups, const Body& body) {
        const int vectors = groups * kGroupVectors;
        const int at_once = vectors % 3 == 0 ? 3 : vectors % 2 == 0 ? 2 : 1;
        for (int lane = 0; lane < vectors * kLanes; lane += at_once * kLanes) {
            if (at_once == 3) body(std::integral_constant<int, 3>(), lane);
            if (at_once == 2) body(std::integral_constant<int, 2>(), lane);
            if (at_once == 1) body(std::integral_constant<int, 1>(), lane);
        }
    }

    // finish(n, sums) with the products of outputs n .. n + kFeatures - 1 and the features x, for
    // the kVectors vectors from `lane` on. Loops over sums are unrolled whole, or they would live
    // in memory instead of registers.
    template <int kVectors, class Finish>
    SDFGAN_INLINE void matrix(const void* panels, const T* features, int lane,
                              const Finish& finish) {
        const int64_t rows = p_.width / Form::kPack;
        const Stored* const x = reinterpret_cast<const Stored*>(features) + lane;
        for (int64_t n = 0; n < p_.width; n += kFeatures) {
            const Stored* w =
                static_cast<const Stored*>(panels) + n / kPanel * rows * kPanel + n % kPanel;
            Real sum[kFeatures][kVectors];
#pragma GCC unroll 8
            for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
                for (int v = 0; v < kVectors; ++v) sum[f][v] = Real{};
            }
#pragma GCC unroll 4
            for (int64_t k = 0; k < rows; ++k) {
                Real in[kVectors];
#pragma GCC unroll 3
                for (int v = 0; v < kVectors; ++v) in[v] = load<Real>(x + k * kTile + v * kLanes);
#pragma GCC unroll 8
                for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
                    for (int v = 0; v < kVectors; ++v) {
                        sum[f][v] = Form::multiply_add(sum[f][v], in[v], w[k * kPanel + f]);
                    }
                }
            }
            finish(n, sum);
        }
    }

    // Stores features n, n + 1, ... of the vector at `lane`: as Form does, or in full.
    static SDFGAN_INLINE void put(T* features, int64_t n, int lane, bool full, const Real* values) {
        if (full) {
            for (int i = 0; i < Form::kPack; ++i)
                store(features + (n + i) * kTile + lane, values[i]);
        } else {
            Form::put(reinterpret_cast<Stored*>(features) + n / Form::kPack * kTile + lane, values);
        }
    }

    template <bool kKeepPhases>
    void first_layer(const T (*x)[kTile], T* y) {
        for (int lane = 0; lane < groups_ * kGroup; lane += kLanes) {
            const T *g = scale(0, lane), *c = shift(0, lane);
            Real in[3];
            for (int axis = 0; axis < 3; ++axis) in[axis] = load<Real>(x[axis] + lane);
            for (int64_t n = 0; n < p_.width; n += Form::kPack) {
                Real out[Form::kPack];
                for (int i = 0; i < Form::kPack; ++i) {
                    const T* w = p_.first + 3 * (n + i);
                    const Real phase =
                        (in[0] * w[0] + in[1] * w[1] + in[2] * w[2]) * g[n + i] + c[n + i];
                    if (kKeepPhases) store(phases(0) + (n + i) * kTile + lane, phase);
                    out[i] = Form::sine(phase);
                }
                put(y, n, lane, false, out);
            }
        }
    }

    // `full`: the features are for a head, not for another layer.
    template <bool kKeepPhases>
    void sine_layer(int layer, bool full) {
        const T* const x = buffer(layer - 1);
        T* const y = buffer(layer);
        for_vectors(groups_, [&](auto vectors, int begin) {
            constexpr int kVectors = decltype(vectors)::value;
            matrix<kVectors>(panels(p_.hidden, layer), x, begin, [&](int64_t n, auto& sum) {
#pragma GCC unroll 8
                for (int f = 0; f < kFeatures; f += Form::kPack) {
#pragma GCC unroll 3
                    for (int v = 0; v < kVectors; ++v) {
                        const int lane = begin + v * kLanes;
                        const T *g = scale(layer, lane) + n, *c = shift(layer, lane) + n;
                        Real out[Form::kPack];
#pragma GCC unroll 2
                        for (int i = 0; i < Form::kPack; ++i) {
                            const Real phase = sum[f + i][v] * g[f + i] + c[f + i];
                            if (kKeepPhases) {
                                store(phases(layer) + (n + f + i) * kTile + lane, phase);
                            }
                            out[i] = Form::sine(phase);
                        }
                        put(y, n + f, lane, full, out);
                    }
                }
            });
        });
    }

    // The adjoint pass: from the head back to the points.
    void backward(const T (*x)[kTile], int last, T (*gradient)[kTile]) {
        for (int lane = 0; lane < groups_ * kGroup; lane += kLanes) {
            const T* g = scale(last, lane);
            for (int64_t n = 0; n < p_.width; n += Form::kPack) {
                Real out[Form::kPack];
                for (int i = 0; i < Form::kPack; ++i) {
                    const Real phase = load<Real>(phases(last) + (n + i) * kTile + lane);
                    out[i] = cosine_of(phase) * (g[n + i] * p_.sdf_head[n + i]);
                }
                put(buffer(last), n, lane, false, out);
            }
        }
        for (int layer = last; layer > 0; --layer) {
            const T* const in = buffer(layer);
            T* const out_buffer = buffer(layer - 1);
            for_vectors(groups_, [&](auto vectors, int begin) {
                constexpr int kVectors = decltype(vectors)::value;
                matrix<kVectors>(
                    panels(p_.transposed, layer), in, begin, [&](int64_t n, auto& sum) {
#pragma GCC unroll 8
                        for (int f = 0; f < kFeatures; f += Form::kPack) {
#pragma GCC unroll 3
                            for (int v = 0; v < kVectors; ++v) {
                                const int lane = begin + v * kLanes;
                                const T* g = scale(layer - 1, lane) + n;
                                Real out[Form::kPack];
#pragma GCC unroll 2
                                for (int i = 0; i < Form::kPack; ++i) {
                                    const T* const phase = phases(layer - 1) + (n + f + i) * kTile;
                                    out[i] = sum[f + i][v] * g[f + i] *
                                             cosine_of(load<Real>(phase + lane));
                                }
                                put(out_buffer, n + f, lane, layer == 1, out);
                            }
                        }
                    });
            });
        }
        for (int lane = 0; lane < groups_ * kGroup; lane += kLanes) {
            Real sum[3] = {}, square = Real{} + p_.constants[0];
            for (int64_t n = 0; n < p_.width; ++n) {
                const Real adjoint = load<Real>(buffer(0) + n * kTile + lane);
                for (int axis = 0; axis < 3; ++axis) sum[axis] += adjoint * p_.first[3 * n + axis];
            }
            for (int axis = 0; axis < 3; ++axis) {
                const Real coordinate = load<Real>(x[axis] + lane);
                square += coordinate * coordinate;
            }
            for (int i = 0; i < kLanes; ++i) square[i] = std::sqrt(square[i]);
            for (int axis = 0; axis < 3; ++axis) {
                sum[axis] += load<Real>(x[axis] + lane) / square;
                store(gradient[axis] + lane, sum[axis]);
            }
        }
    }

    const void* panels(const void* all, int layer) {
        return static_cast<const Stored*>(all) + (layer - 1) * p_.width * p_.width / Form::kPack;
    }

    void head(const T* weights, const T* features, T* out) {
        for (int lane = 0; lane < groups_ * kGroup; lane += kLanes) {
            Real sum = {};
            for (int64_t n = 0; n < p_.width; ++n) {
                sum += load<Real>(features + n * kTile + lane) * weights[n];
            }
            store(out + lane, sum);
        }
    }

    void add_prior(const T (*x)[kTile], T* sdf) {
        for (int lane = 0; lane < groups_ * kGroup; ++lane) {
            const T square = x[0][lane] * x[0][lane] + x[1][lane] * x[1][lane] +
                             x[2][lane] * x[2][lane] + p_.constants[0];
            sdf[lane] += std::sqrt(square) + p_.constants[1];
        }
    }

    const FilmSiren<T> p_;
    const int64_t layers_, row_;
    const Memory memory_;
    T* const buffers_[2];
    T* const phases_;
    int64_t film_[kTileGroups];
    int groups_ = 0;
};

}  // namespace
}  // namespace sdfgan::cpu
