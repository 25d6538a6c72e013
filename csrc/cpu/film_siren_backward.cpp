// The gradient of FiLM-SIRENs by all that their answers depend on, without a graph: a tile of
// points goes forward and back through all layers in cache.
//
// For a loss with gradients s by the sdf, g by its gradient and t by the texture,
// s sdf + g . grad sdf is differentiated in reverse over one tangent, the derivative along g
// (Griewank and Walther 2008, section 5.3). Of a layer p = scale (W h) + shift, sin p, cos p, with
// the h of the layer before it, and with dots for the tangent:
//   forward    p. = scale (W h.),  h. = cos(p) p.,  from x. = g
//   adjoints   a of the layer's features, a. of their tangents: those that make grad sdf
//   reverse    q = a cos p - a. sin(p) p.,  u = scale q,  u. = scale cos(p) a.
//              below: a = W^T u,  a. = W^T u.;  the texture's joins at the end of the trunk
//   gradients  of W: the sum M of u h^T + u. h.^T; of shift: that of q; of scale: the sums over
//              inputs of M W / scale, since M is scale times what scale multiplies. So it is taken
//              of each image's own M, and a scale of 0 counts as kLeastScale.
// Unlike cpu/film_siren.h, a vector holds several features of one point: then W h, W^T u and u h^T
// are one kind of product, without transposition.
#include <atomic>

#include "cpu/film_siren.h"

namespace sdfgan::cpu {
namespace {

constexpr double kLeastScale = 1e-20;

SDFGAN_HD void sine_and_cosine_of(Floats x, Floats& s, Floats& c) {
    sine_and_cosine<Floats, Bits>(x, s, c);
}
SDFGAN_HD void sine_and_cosine_of(Doubles x, Doubles& s, Doubles& c) {
    s = sine_of(x);
    c = cosine_of(x);
}

// Matrices from panels of kPanel outputs to panels of `lanes`.
template <class T>
void repack(const T* from, int64_t matrices, int64_t width, int lanes, T* to) {
    for (int64_t i = 0; i < matrices * width * width; i += width * width) {
        for (int64_t n = 0; n < width; ++n) {
            const T* const in = from + i + n / kPanel * kPanel * width + n % kPanel;
            T* const out = to + i + n / lanes * lanes * width + n % lanes;
            for (int64_t k = 0; k < width; ++k) out[k * lanes] = in[k * kPanel];
        }
    }
}

// What the threads share.
template <class T>
struct Shared {
    const FilmSirenBackward<T>& p;
    const BackwardWork<T>& work;
    const T *forward, *backward;  // matrices in panels of a vector of outputs, of inputs
    std::atomic<int64_t> next{0};
};

template <class T>
class Differentiator {
  public:
    using Real = typename Full<T>::Real;
    static constexpr int kLanes = kVectorBytes / sizeof(T);

    explicit Differentiator(Shared<T>& shared)
        : shared_(shared),
          p_(shared.p),
          width_(p_.network.width),
          trunk_(p_.network.trunk_layers),
          sdf_end_(trunk_ + p_.network.sdf_layers),
          layers_(sdf_end_ + p_.network.texture_layers),
          array_(width_ * kTile + kSkew),
          square_(width_ * width_),
          memory_((size_t)((2 * layers_ + 2 * sdf_end_ + 5) * array_ + (layers_ - 1) * square_ +
                           (layers_ + 6 + kLanes) * width_) *
                  sizeof(T)) {
        T* at = static_cast<T*>(memory_.address);
        const auto take = [&](int64_t values) {
            T* const taken = at;
            at += values;
            return taken;
        };
        sines_ = take(layers_ * array_);
        cosines_ = take(layers_ * array_);
        phase_tangents_ = take(sdf_end_ * array_);
        tangents_ = take(sdf_end_ * array_);
        for (int i = 0; i < 2; ++i) u_[i] = take(array_), v_[i] = take(array_);
        texture_adjoint_ = take(array_);
        matrices_ = take((layers_ - 1) * square_);
        scale_ = take(layers_ * width_);
        first_ = take(3 * width_);
        first_sums_ = take(3 * width_);
        row_sums_ = take(kLanes * width_);
        std::memset(matrices_, 0, (layers_ - 1) * square_ * sizeof(T));
        std::memset(first_sums_, 0, 3 * width_ * sizeof(T));
        for (int64_t n = 0; n < width_; ++n) {
            for (int axis = 0; axis < 3; ++axis) {
                first_[axis * width_ + n] = p_.network.first[3 * n + axis];
            }
        }
    }

    void run() {
        const BackwardWork<T>& work = shared_.work;
        for (int64_t slot; (slot = shared_.next.fetch_add(1)) < work.slots;) {
            sums_ = work.sums + slot * work.size;
            std::memset(sums_, 0, work.size * sizeof(T));
            const BackwardTile* const end = work.tiles + (slot + 1) * work.tile_count / work.slots;
            for (const BackwardTile* tile = work.tiles + slot * work.tile_count / work.slots;
                 tile < end; ++tile) {
                if (!image_ || tile->entry != image_->entry) begin_image(tile);
                load_tile(*tile);
                p_.grad_gradient ? differentiate<true>() : differentiate<false>();
                store_points(*tile);
            }
            end_image();
            image_ = nullptr;
        }
    }

  private:
    static constexpr int kBlock = kFeatures == 8 ? 12 : 6;  // points x 2 vectors of sums
    static constexpr int64_t kRow = kTile * kLanes;         // a vector of features of all points
    static constexpr int64_t kSkew = 80;  // values, lest arrays fall into the same sets of a cache
    static_assert(kTile % kBlock == 0);

    // Features of a layer are [width / kLanes, kTile, kLanes].
    T* sines(int layer) { return sines_ + layer * array_; }
    T* cosines(int layer) { return cosines_ + layer * array_; }
    T* phase_tangents(int layer) { return phase_tangents_ + layer * array_; }
    T* tangents(int layer) { return tangents_ + layer * array_; }
    T* u(int layer) { return u_[layer & 1]; }
    T* v(int layer) { return v_[layer & 1]; }  // u of the tangents
    const T* forward(int layer) const { return shared_.forward + (layer - 1) * square_; }
    const T* backward(int layer) const { return shared_.backward + (layer - 1) * square_; }
    T* matrix_sums(int layer) { return matrices_ + (layer - 1) * square_; }
    int below(int layer) const { return layer == sdf_end_ ? trunk_ - 1 : layer - 1; }

    static SDFGAN_INLINE void add(T* at, Real values) { store(at, load<Real>(at) + values); }

    // ---- images and tiles

    void begin_image(const BackwardTile* tile) {
        if (image_) end_image();
        image_ = tile;
        const T* const scale = p_.network.scale + tile->image * layers_ * width_;
        for (int64_t i = 0; i < layers_ * width_; ++i) {
            scale_[i] = std::abs(scale[i]) < T(kLeastScale) ? T(kLeastScale) : scale[i];
        }
        shift_ = p_.network.shift + tile->image * layers_ * width_;
        scale_sums_ = shared_.work.film + tile->entry * 2 * layers_ * width_;
        shift_sums_ = scale_sums_ + layers_ * width_;
        std::memset(scale_sums_, 0, 2 * layers_ * width_ * sizeof(T));
    }

    // The scale's gradient from the matrices' sums, which go to those of the slot.
    void end_image() {
        for (int64_t n = 0; n < width_; ++n) {
            T dot = 0;
            for (int axis = 0; axis < 3; ++axis) {
                T& sum = first_sums_[axis * width_ + n];
                dot += sum * first_[axis * width_ + n];
                first_slot()[axis * width_ + n] += sum;
                sum = 0;
            }
            scale_sums_[n] = dot / scale_[n];
        }
        const int used = p_.grad_texture ? layers_ : sdf_end_;
        for (int layer = 1; layer < used; ++layer) {
            T *const m = matrix_sums(layer), *const slot = sums_ + (layer - 1) * square_;
            T* const rows = row_sums_;
            const T* const weights = backward(layer);
            std::memset(rows, 0, kLanes * width_ * sizeof(T));
            for (int64_t k = 0; k < square_; k += kLanes * width_) {
                for (int64_t i = 0; i < kLanes * width_; i += kLanes) {
                    const Real sum = load<Real>(m + k + i);
                    add(rows + i, sum * load<Real>(weights + k + i));
                    add(slot + k + i, sum);
                    store(m + k + i, Real{});
                }
            }
            for (int64_t n = 0; n < width_; ++n) {
                const int64_t at = layer * width_ + n;
                scale_sums_[at] = sum_of(load<Real>(rows + n * kLanes)) / scale_[at];
            }
        }
    }

    T* first_slot() { return sums_ + (layers_ - 1) * square_; }
    T* sdf_head_slot() { return first_slot() + 3 * width_; }
    T* texture_head_slot() { return sdf_head_slot() + width_; }
    T* constants_slot() { return texture_head_slot() + 3 * width_; }

    static T sum_of(Real vector) {
        T values[kLanes];
        store(values, vector);
        for (int half = kLanes / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) values[i] += values[i + half];
        }
        return values[0];
    }

    // Points past the end repeat the last one with gradients of zero, and add exactly nothing.
    void load_tile(const BackwardTile& tile) {
        const int count = static_cast<int>(tile.end - tile.begin);
        points_ = (count + kBlock - 1) / kBlock * kBlock;
        for (int i = 0; i < points_; ++i) {
            const int64_t point = shared_.work.order[tile.begin + min_of(i, count - 1)];
            const bool in = i < count;
            s_[i] = in && p_.grad_sdf ? p_.grad_sdf[point] : 0;
            for (int axis = 0; axis < 3; ++axis) {
                x_[axis][i] = p_.points[3 * point + axis];
                g_[axis][i] = in && p_.grad_gradient ? p_.grad_gradient[3 * point + axis] : 0;
                t_[axis][i] = in && p_.grad_texture ? p_.grad_texture[3 * point + axis] : 0;
            }
        }
    }

    // The first layer's share in the points' gradient, and the prior's.
    void store_points(const BackwardTile& tile) {
        const T *const features = u(0), *const first = first_;
        T softness = 0, offset = 0;
        for (int i = 0; i < tile.end - tile.begin; ++i) {
            Real sum[3] = {};
            for (int64_t n = 0; n < width_; n += kLanes) {
                const Real feature = load<Real>(features + n * kTile + i * kLanes);
                for (int axis = 0; axis < 3; ++axis) {
                    sum[axis] += feature * load<Real>(first + axis * width_ + n);
                }
            }
            T square = p_.network.constants[0], along = 0;
            for (int axis = 0; axis < 3; ++axis) {
                square += x_[axis][i] * x_[axis][i];
                along += x_[axis][i] * g_[axis][i];
            }
            const T inverse = 1 / std::sqrt(square), slope = s_[i] - along * inverse * inverse;
            T* const out = p_.grad_points + 3 * shared_.work.order[tile.begin + i];
            for (int axis = 0; axis < 3; ++axis) {
                out[axis] = sum_of(sum[axis]) + inverse * (g_[axis][i] + x_[axis][i] * slope);
            }
            softness += inverse * slope / 2;
            offset += s_[i];
        }
        constants_slot()[0] += softness;
        constants_slot()[1] += offset;
    }

    // ---- products

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
    template <int kVectors, class Finish>
    SDFGAN_INLINE void product(const T* panels, const T* in, int64_t n,
                               const Finish& finish) const {
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

    // m[k][n] += sum over the points of a[n] b[k]: kVectors vectors of inputs k, all outputs n
    template <int kVectors>
    SDFGAN_INLINE void outer_columns(const T* a, const T* b, T* m) const {
        const int64_t width = width_;
        const int points = points_;
        for (int64_t n = 0; n < width; n += kFeatures) {
            const T* const outputs = a + n / kLanes * kRow + n % kLanes;
            Real sum[kFeatures][kVectors];
#pragma GCC unroll 8
            for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
                for (int v = 0; v < kVectors; ++v) {
                    sum[f][v] = load<Real>(m + (v * width + n + f) * kLanes);
                }
            }
#pragma GCC unroll 2
            for (int i = 0; i < points; ++i) {
                Real in[kVectors];
#pragma GCC unroll 3
                for (int v = 0; v < kVectors; ++v) in[v] = load<Real>(b + v * kRow + i * kLanes);
#pragma GCC unroll 8
                for (int f = 0; f < kFeatures; ++f) {
                    const T output = outputs[f / kLanes * kRow + f % kLanes + i * kLanes];
#pragma GCC unroll 3
                    for (int v = 0; v < kVectors; ++v) sum[f][v] = sum[f][v] + in[v] * output;
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

    void outer(const T* a, const T* b, T* m) const {
        for (int64_t k = 0; k < width_;) {
            const int64_t rest = (width_ - k) / kLanes;
            const T* const in = b + k * kTile;
            T* const out = m + k * width_;
            const int at_once = rest % 3 == 0 ? 3 : rest >= 2 ? 2 : 1;
            if (at_once == 3) outer_columns<3>(a, in, out);
            if (at_once == 2) outer_columns<2>(a, in, out);
            if (at_once == 1) outer_columns<1>(a, in, out);
            k += at_once * kLanes;
        }
    }

    // ---- layers

    template <bool kTangent>
    void first_layer() {
        const T *const scale = scale_, *const shift = shift_, *const first = first_;
        T *const s = sines(0), *const c = cosines(0);
        T *const pt = phase_tangents(0), *const ht = tangents(0);
        const int points = points_;
        for (int64_t n = 0; n < width_; n += kLanes) {
            const Real w0 = load<Real>(first + n), w1 = load<Real>(first + width_ + n),
                       w2 = load<Real>(first + 2 * width_ + n), g = load<Real>(scale + n),
                       b = load<Real>(shift + n);
            for (int i = 0; i < points; ++i) {
                const int64_t at = n * kTile + i * kLanes;
                Real sine, cosine;
                sine_and_cosine_of((w0 * x_[0][i] + w1 * x_[1][i] + w2 * x_[2][i]) * g + b, sine,
                                   cosine);
                store(s + at, sine);
                store(c + at, cosine);
                if constexpr (kTangent) {
                    const Real tangent = (w0 * g_[0][i] + w1 * g_[1][i] + w2 * g_[2][i]) * g;
                    store(pt + at, tangent);
                    store(ht + at, tangent * cosine);
                }
            }
        }
    }

    // Sine and cosine of outputs n, n + 1, ... of a layer.
    template <int kVectors>
    SDFGAN_INLINE void sine_layer(int layer, int64_t n) {
        const T *const scale = scale_ + layer * width_ + n, *const shift =
                                                                shift_ + layer * width_ + n;
        T *const s = sines(layer), *const c = cosines(layer);
        product<kVectors>(forward(layer), sines(below(layer)), n, [=](int64_t begin, auto& sums) {
            for_sums(begin, sums, [=](int v, int64_t at, Real sum) {
                Real sine, cosine;
                sine_and_cosine_of(
                    sum * load<Real>(scale + v * kLanes) + load<Real>(shift + v * kLanes), sine,
                    cosine);
                store(s + at, sine);
                store(c + at, cosine);
            });
        });
    }

    template <int kVectors>
    SDFGAN_INLINE void tangent_layer(int layer, int64_t n) {
        const T *const scale = scale_ + layer * width_ + n, *const c = cosines(layer);
        T *const pt = phase_tangents(layer), *const ht = tangents(layer);
        product<kVectors>(forward(layer), tangents(layer - 1), n, [=](int64_t begin, auto& sums) {
            for_sums(begin, sums, [=](int v, int64_t at, Real sum) {
                const Real tangent = sum * load<Real>(scale + v * kLanes);
                store(pt + at, tangent);
                store(ht + at, tangent * load<Real>(c + at));
            });
        });
    }

    // All of one tile, but the points' gradient: it is made of u(0).
    template <bool kTangent>
    void differentiate() {
        first_layer<kTangent>();
        for (int layer = 1; layer < sdf_end_; ++layer) {
            for_outputs([&](auto vectors, int64_t n) {
                sine_layer<decltype(vectors)::value>(layer, n);
                if constexpr (kTangent) tangent_layer<decltype(vectors)::value>(layer, n);
            });
        }
        if (p_.grad_texture) texture();
        sdf_head<kTangent>();
        for (int layer = sdf_end_ - 1; layer > 0; --layer) {
            outer(u(layer), sines(layer - 1), matrix_sums(layer));
            if constexpr (kTangent) outer(v(layer), tangents(layer - 1), matrix_sums(layer));
            for_outputs([&](auto vectors, int64_t n) {
                if constexpr (kTangent) reverse_tangent<decltype(vectors)::value>(layer, n);
                reverse<decltype(vectors)::value, kTangent>(layer, n);
            });
        }
        first_layer_sums<kTangent>();
    }

    // From the texture's gradient to its share in the adjoint of the trunk's features.
    void texture() {
        for (int layer = sdf_end_; layer < layers_; ++layer) {
            for_outputs(
                [&](auto vectors, int64_t n) { sine_layer<decltype(vectors)::value>(layer, n); });
        }
        const bool bare = layers_ == sdf_end_;  // the head is on the trunk's features
        const int last = bare ? trunk_ - 1 : layers_ - 1;
        const T *const s = sines(last), *const c = cosines(last),
                       *const scale = scale_ + last * width_;
        T* const out = bare ? texture_adjoint_ : u(last);
        const T* const head = p_.network.texture_head;
        for (int64_t n = 0; n < width_; n += kLanes) {
            Real of_shift{}, of_head[3] = {}, w[3];
            for (int i = 0; i < 3; ++i) w[i] = load<Real>(head + i * width_ + n);
            const Real g = load<Real>(scale + n);
            for (int i = 0; i < points_; ++i) {
                const int64_t at = n * kTile + i * kLanes;
                const Real feature = load<Real>(s + at);
                for (int j = 0; j < 3; ++j) of_head[j] += feature * t_[j][i];
                const Real adjoint = w[0] * t_[0][i] + w[1] * t_[1][i] + w[2] * t_[2][i];
                const Real q = adjoint * load<Real>(c + at);
                of_shift += q;
                store(out + at, bare ? adjoint : q * g);
            }
            for (int j = 0; j < 3; ++j) add(texture_head_slot() + j * width_ + n, of_head[j]);
            if (!bare) add(shift_sums_ + last * width_ + n, of_shift);
        }
        for (int layer = layers_ - 1; layer >= sdf_end_; --layer) {
            outer(u(layer), sines(below(layer)), matrix_sums(layer));
            for_outputs([&](auto vectors, int64_t n) {
                constexpr int kVectors = decltype(vectors)::value;
                if (layer == sdf_end_) {
                    T* const adjoints = texture_adjoint_;
                    product<kVectors>(backward(layer), u(layer), n, [=](int64_t begin, auto& sums) {
                        for_sums(begin, sums,
                                 [=](int, int64_t at, Real sum) { store(adjoints + at, sum); });
                    });
                } else {
                    reverse<kVectors, false>(layer, n);
                }
            });
        }
    }

    // u and v of the last layer of the sdf.
    template <bool kTangent>
    void sdf_head() {
        const int last = sdf_end_ - 1;
        const T *const s = sines(last), *const c = cosines(last),
                       *const scale = scale_ + last * width_;
        const T *const pt = phase_tangents(last), *const ht = tangents(last);
        const T* const head = p_.network.sdf_head;
        T *const out = u(last), *const tangent_out = v(last);
        for (int64_t n = 0; n < width_; n += kLanes) {
            const Real w = load<Real>(head + n), g = load<Real>(scale + n), both = w * g;
            Real of_shift{}, of_head{};
            for (int i = 0; i < points_; ++i) {
                const int64_t at = n * kTile + i * kLanes;
                const Real feature = load<Real>(s + at), cosine = load<Real>(c + at);
                of_head += feature * s_[i];
                Real q = cosine * s_[i];
                if constexpr (kTangent) {
                    of_head += load<Real>(ht + at);
                    q -= feature * load<Real>(pt + at);
                    store(tangent_out + at, cosine * both);
                }
                q *= w;
                of_shift += q;
                store(out + at, q * g);
            }
            add(shift_sums_ + last * width_ + n, of_shift);
            add(sdf_head_slot() + n, of_head);
        }
    }

    // From v(layer) to outputs n, n + 1, ... of v(layer - 1), and to a. sin(p) p. where u will be.
    template <int kVectors>
    SDFGAN_INLINE void reverse_tangent(int layer, int64_t n) {
        const int to = layer - 1;
        const T *const s = sines(to), *const c = cosines(to), *const pt = phase_tangents(to);
        const T* const scale = scale_ + to * width_ + n;
        T *const out = v(to), *const curved = u(to);
        product<kVectors>(backward(layer), v(layer), n, [=](int64_t begin, auto& sums) {
            for_sums(begin, sums, [=](int i, int64_t at, Real sum) {
                store(curved + at, sum * load<Real>(s + at) * load<Real>(pt + at));
                store(out + at, sum * load<Real>(scale + i * kLanes) * load<Real>(c + at));
            });
        });
    }

    // From u(layer) to outputs n, n + 1, ... of u(layer - 1).
    template <int kVectors, bool kTangent>
    SDFGAN_INLINE void reverse(int layer, int64_t n) {
        const int to = layer - 1;
        const T *const c = cosines(to), *const scale = scale_ + to * width_ + n;
        const T* const joined = layer == trunk_ && p_.grad_texture ? texture_adjoint_ : nullptr;
        T *const out = u(to), *const shift_sums = shift_sums_ + to * width_ + n;
        product<kVectors>(backward(layer), u(layer), n, [=](int64_t begin, auto& sums) {
            if (joined) {
                for_sums(begin, sums,
                         [=](int, int64_t at, Real& sum) { sum += load<Real>(joined + at); });
            }
            Real of_shift[kVectors] = {};
            for_sums(begin, sums, [&](int i, int64_t at, Real sum) {
                Real q = sum * load<Real>(c + at);
                if constexpr (kTangent) q -= load<Real>(out + at);
                of_shift[i] += q;
                store(out + at, q * load<Real>(scale + i * kLanes));
            });
            for (int i = 0; i < kVectors; ++i) add(shift_sums + i * kLanes, of_shift[i]);
        });
    }

    template <bool kTangent>
    void first_layer_sums() {
        const T *const features = u(0), *const of_tangents = v(0);
        for (int64_t n = 0; n < width_; n += kLanes) {
            Real sum[3] = {};
            for (int i = 0; i < points_; ++i) {
                const int64_t at = n * kTile + i * kLanes;
                const Real feature = load<Real>(features + at);
                for (int axis = 0; axis < 3; ++axis) sum[axis] += feature * x_[axis][i];
                if constexpr (kTangent) {
                    const Real tangent = load<Real>(of_tangents + at);
                    for (int axis = 0; axis < 3; ++axis) sum[axis] += tangent * g_[axis][i];
                }
            }
            for (int axis = 0; axis < 3; ++axis) add(first_sums_ + axis * width_ + n, sum[axis]);
        }
    }

    Shared<T>& shared_;
    const FilmSirenBackward<T>& p_;
    const int64_t width_;
    const int trunk_, sdf_end_, layers_;
    const int64_t array_, square_;
    const Memory memory_;
    T *sines_, *cosines_, *phase_tangents_, *tangents_, *u_[2], *v_[2], *texture_adjoint_;
    T *matrices_, *scale_, *first_, *first_sums_, *row_sums_;
    const T* shift_ = nullptr;
    T *sums_ = nullptr, *scale_sums_ = nullptr, *shift_sums_ = nullptr;
    const BackwardTile* image_ = nullptr;  // the first tile of the one that is being added up
    int points_ = 0;
    alignas(64) T x_[3][kTile], g_[3][kTile], t_[3][kTile], s_[kTile];
};

template <class T>
void differentiate(const FilmSirenBackward<T>& p, BackwardWork<T>& work, int threads) {
    constexpr int kLanes = Differentiator<T>::kLanes;
    const FilmSiren<T>& network = p.network;
    const int64_t matrices = network.trunk_layers + network.sdf_layers + network.texture_layers - 1;
    const int64_t values = matrices * network.width * network.width;
    const bool same = kLanes == kPanel;
    const Memory memory(same ? 1 : 2 * values * sizeof(T));
    const T* panels[2] = {static_cast<const T*>(network.hidden),
                          static_cast<const T*>(network.transposed)};
    for (int i = 0; i < 2 && !same; ++i) {
        T* const to = static_cast<T*>(memory.address) + i * values;
        repack(panels[i], matrices, network.width, kLanes, to);
        panels[i] = to;
    }
    work.lanes = kLanes;
    Shared<T> shared{p, work, panels[0], panels[1]};
    run_threads(
        static_cast<int>(min_of<int64_t>(threads, work.slots)), &shared, [](void*, int) {},
        [](void* context) { Differentiator<T>(*static_cast<Shared<T>*>(context)).run(); });
}

}  // namespace

void SDFGAN_LEVEL(film_siren_backward_)(const FilmSirenBackward<float>& p,
                                        BackwardWork<float>& work, int threads) {
    differentiate(p, work, threads);
}
void SDFGAN_LEVEL(film_siren_backward_)(const FilmSirenBackward<double>& p,
                                        BackwardWork<double>& work, int threads) {
    differentiate(p, work, threads);
}

}  // namespace sdfgan::cpu
