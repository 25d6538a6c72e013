// The gradient of FiLM-SIRENs by all that their answers depend on, without a graph: a tile of
// points goes forward and back through all layers in cache.
//
// For a loss with gradients s by the sdf, g by its gradient and t by the texture,
// s sdf + g . grad sdf is differentiated in reverse over one tangent, the derivative along g
// (Griewank and Walther 2008, section 5.3). Of a layer z = W h, p = scale z + shift, sin p, where h
// is the layer before it, with dots for the tangent:
//   forward    z. = W h.,  h. = scale cos(p) z. for the next,  from x. = g
//   adjoints   a of the layer's features; a. of their tangents, those that make grad sdf
//   reverse    q = a cos p - a. sin(p) scale z.,  q. = a. cos p,  u = scale q,  u. = scale q.
//              below: a = W^T u,  a. = W^T u.;  the texture's joins at the end of the trunk
//   gradients  of W: the sum of u h^T + u. h.^T; of shift: of q; of scale: of q z + q. z.
// Products and the layout of features: cpu/products.h.
#include <atomic>

#include "cpu/products.h"

namespace sdfgan::cpu {
namespace {

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
class Differentiator : Products<T> {
    using typename Products<T>::Real;
    using Products<T>::kBlock, Products<T>::kRow, Products<T>::width_, Products<T>::points_;
    using Products<T>::add, Products<T>::sum_of, Products<T>::for_outputs, Products<T>::product;
    using Products<T>::for_sums, Products<T>::outer_columns;

  public:
    using Products<T>::kLanes;

    explicit Differentiator(Shared<T>& shared)
        : Products<T>(shared.p.network.width),
          shared_(shared),
          p_(shared.p),
          trunk_(p_.network.trunk_layers),
          sdf_end_(trunk_ + p_.network.sdf_layers),
          layers_(sdf_end_ + p_.network.texture_layers),
          array_(width_ * kTile + kSkew),
          square_(width_ * width_),
          memory_((size_t)((3 * layers_ + 2 * sdf_end_ + 5) * array_ + 3 * width_) * sizeof(T)) {
        T* at = static_cast<T*>(memory_.address);
        const auto take = [&](int64_t values) {
            T* const taken = at;
            at += values;
            return taken;
        };
        sums_z_ = take(layers_ * array_);
        sines_ = take(layers_ * array_);
        cosines_ = take(layers_ * array_);
        tangents_z_ = take(sdf_end_ * array_);
        tangents_ = take(sdf_end_ * array_);
        for (int i = 0; i < 2; ++i) u_[i] = take(array_), v_[i] = take(array_);
        texture_adjoint_ = take(array_);
        first_ = take(3 * width_);
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
                if (tile->entry != entry_) begin_image(*tile);
                load_tile(*tile);
                p_.grad_gradient ? differentiate<true>() : differentiate<false>();
                store_points(*tile);
            }
        }
    }

  private:
    static constexpr int64_t kSkew = 80;  // values, lest arrays fall into the same sets of a cache

    T* sines(int layer) { return sines_ + layer * array_; }
    T* cosines(int layer) { return cosines_ + layer * array_; }
    T* z(int layer) { return sums_z_ + layer * array_; }
    T* tangent_z(int layer) { return tangents_z_ + layer * array_; }
    T* tangents(int layer) { return tangents_ + layer * array_; }
    T* u(int layer) { return u_[layer & 1]; }
    T* v(int layer) { return v_[layer & 1]; }  // u of the tangents
    const T* forward(int layer) const { return shared_.forward + (layer - 1) * square_; }
    const T* backward(int layer) const { return shared_.backward + (layer - 1) * square_; }
    int below(int layer) const { return layer == sdf_end_ ? trunk_ - 1 : layer - 1; }

    // ---- tiles

    void begin_image(const BackwardTile& tile) {
        const int64_t film = layers_ * width_;
        entry_ = tile.entry;
        scale_ = p_.network.scale + tile.image * film;
        shift_ = p_.network.shift + tile.image * film;
        scale_sums_ = shared_.work.film + entry_ * 2 * film;
        shift_sums_ = scale_sums_ + film;
        std::memset(scale_sums_, 0, 2 * film * sizeof(T));
    }

    T* matrix_slot(int layer) { return sums_ + (layer - 1) * square_; }
    T* first_slot() { return sums_ + (layers_ - 1) * square_; }
    T* sdf_head_slot() { return first_slot() + 3 * width_; }
    T* texture_head_slot() { return sdf_head_slot() + width_; }
    T* constants_slot() { return texture_head_slot() + 3 * width_; }

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

    // ---- layers

    // Adds the gradient of a layer's matrix, from its u and the features before it.
    template <bool kTangent>
    void outer(int layer) {
        const int from = below(layer);
        const T *const a = u(layer), *const a_tangent = kTangent ? v(layer) : a;
        const T *const b = sines(from), *const b_tangent = kTangent ? tangents(from) : b;
        const std::bool_constant<kTangent> side{};
        for (int64_t k = 0; k < width_;) {
            const int64_t rest = (width_ - k) / kLanes, at = k * kTile;
            T* const out = matrix_slot(layer) + k * width_;
            const int at_once = rest % 3 == 0 ? 3 : rest >= 2 ? 2 : 1;
            const auto columns = [&](auto vectors) {
                this->outer_columns(vectors, side, a, b + at, a_tangent, b_tangent + at, out);
            };
            if (at_once == 3) columns(std::integral_constant<int, 3>());
            if (at_once == 2) columns(std::integral_constant<int, 2>());
            if (at_once == 1) columns(std::integral_constant<int, 1>());
            k += at_once * kLanes;
        }
    }

    template <bool kTangent>
    void first_layer() {
        const T *const scale = scale_, *const shift = shift_, *const first = first_;
        T *const zs = z(0), *const s = sines(0), *const c = cosines(0);
        T *const zt = tangent_z(0), *const ht = tangents(0);
        const int points = points_;
        for (int64_t n = 0; n < width_; n += kLanes) {
            const Real w0 = load<Real>(first + n), w1 = load<Real>(first + width_ + n),
                       w2 = load<Real>(first + 2 * width_ + n), g = load<Real>(scale + n),
                       b = load<Real>(shift + n);
            for (int i = 0; i < points; ++i) {
                const int64_t at = n * kTile + i * kLanes;
                Real sine, cosine;
                const Real sum = w0 * x_[0][i] + w1 * x_[1][i] + w2 * x_[2][i];
                sine_and_cosine_of(sum * g + b, sine, cosine);
                store(zs + at, sum);
                store(s + at, sine);
                store(c + at, cosine);
                if constexpr (kTangent) {
                    const Real tangent = w0 * g_[0][i] + w1 * g_[1][i] + w2 * g_[2][i];
                    store(zt + at, tangent);
                    store(ht + at, tangent * g * cosine);
                }
            }
        }
    }

    // Sine and cosine of outputs n, n + 1, ... of a layer.
    template <int kVectors>
    SDFGAN_INLINE void sine_layer(int layer, int64_t n) {
        const T *const scale = scale_ + layer * width_ + n, *const shift =
                                                                shift_ + layer * width_ + n;
        T *const zs = z(layer), *const s = sines(layer), *const c = cosines(layer);
        product(std::integral_constant<int, kVectors>(), forward(layer), sines(below(layer)), n,
                [=](int64_t begin, auto& sums) {
                    for_sums(begin, sums, [=](int v, int64_t at, Real sum) {
                        Real sine, cosine;
                        sine_and_cosine_of(
                            sum * load<Real>(scale + v * kLanes) + load<Real>(shift + v * kLanes),
                            sine, cosine);
                        store(zs + at, sum);
                        store(s + at, sine);
                        store(c + at, cosine);
                    });
                });
    }

    template <int kVectors>
    SDFGAN_INLINE void tangent_layer(int layer, int64_t n) {
        const T *const scale = scale_ + layer * width_ + n, *const c = cosines(layer);
        T *const zt = tangent_z(layer), *const ht = tangents(layer);
        product(std::integral_constant<int, kVectors>(), forward(layer), tangents(layer - 1), n,
                [=](int64_t begin, auto& sums) {
                    for_sums(begin, sums, [=](int v, int64_t at, Real sum) {
                        store(zt + at, sum);
                        store(ht + at, sum * load<Real>(scale + v * kLanes) * load<Real>(c + at));
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
            outer<kTangent>(layer);
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
        const T *const s = sines(last), *const c = cosines(last), *const zs = z(last);
        const T* const scale = scale_ + last * width_;
        T* const out = bare ? texture_adjoint_ : u(last);
        const T* const head = p_.network.texture_head;
        for (int64_t n = 0; n < width_; n += kLanes) {
            Real of_scale{}, of_shift{}, of_head[3] = {}, w[3];
            for (int i = 0; i < 3; ++i) w[i] = load<Real>(head + i * width_ + n);
            const Real g = load<Real>(scale + n);
            for (int i = 0; i < points_; ++i) {
                const int64_t at = n * kTile + i * kLanes;
                const Real feature = load<Real>(s + at);
                for (int j = 0; j < 3; ++j) of_head[j] += feature * t_[j][i];
                const Real adjoint = w[0] * t_[0][i] + w[1] * t_[1][i] + w[2] * t_[2][i];
                const Real q = adjoint * load<Real>(c + at);
                of_scale += q * load<Real>(zs + at);
                of_shift += q;
                store(out + at, bare ? adjoint : q * g);
            }
            for (int j = 0; j < 3; ++j) add(texture_head_slot() + j * width_ + n, of_head[j]);
            if (bare) continue;
            add(scale_sums_ + last * width_ + n, of_scale);
            add(shift_sums_ + last * width_ + n, of_shift);
        }
        for (int layer = layers_ - 1; layer >= sdf_end_; --layer) {
            outer<false>(layer);
            for_outputs([&](auto vectors, int64_t n) {
                constexpr int kVectors = decltype(vectors)::value;
                if (layer == sdf_end_) {
                    T* const adjoints = texture_adjoint_;
                    product(std::integral_constant<int, kVectors>(), backward(layer), u(layer), n,
                            [=](int64_t begin, auto& sums) {
                                for_sums(begin, sums, [=](int, int64_t at, Real sum) {
                                    store(adjoints + at, sum);
                                });
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
        const T *const s = sines(last), *const c = cosines(last), *const zs = z(last);
        const T *const zt = tangent_z(last), *const ht = tangents(last);
        const T* const scale = scale_ + last * width_;
        const T* const head = p_.network.sdf_head;
        T *const out = u(last), *const tangent_out = v(last);
        for (int64_t n = 0; n < width_; n += kLanes) {
            const Real w = load<Real>(head + n), g = load<Real>(scale + n), both = w * g;
            Real of_scale{}, of_shift{}, of_head{};
            for (int i = 0; i < points_; ++i) {
                const int64_t at = n * kTile + i * kLanes;
                const Real feature = load<Real>(s + at), cosine = load<Real>(c + at);
                of_head += feature * s_[i];
                Real q = cosine * s_[i];
                if constexpr (kTangent) {
                    const Real tangent = load<Real>(zt + at);
                    of_head += load<Real>(ht + at);
                    q -= feature * tangent * g;
                    of_scale += cosine * w * tangent;
                    store(tangent_out + at, cosine * both);
                }
                q *= w;
                of_scale += q * load<Real>(zs + at);
                of_shift += q;
                store(out + at, q * g);
            }
            add(scale_sums_ + last * width_ + n, of_scale);
            add(shift_sums_ + last * width_ + n, of_shift);
            add(sdf_head_slot() + n, of_head);
        }
    }

    // From v(layer) to outputs n, n + 1, ... of v(layer - 1), and to a. sin(p) scale z. where u
    // will be.
    template <int kVectors>
    SDFGAN_INLINE void reverse_tangent(int layer, int64_t n) {
        const int to = layer - 1;
        const T *const s = sines(to), *const c = cosines(to), *const zt = tangent_z(to);
        const T* const scale = scale_ + to * width_ + n;
        T *const out = v(to), *const curved = u(to);
        T* const scale_sums = scale_sums_ + to * width_ + n;
        product(std::integral_constant<int, kVectors>(), backward(layer), v(layer), n,
                [=](int64_t begin, auto& sums) {
                    Real of_scale[kVectors] = {};
                    for_sums(begin, sums, [&](int i, int64_t at, Real sum) {
                        const Real g = load<Real>(scale + i * kLanes),
                                   tangent = load<Real>(zt + at);
                        const Real q = sum * load<Real>(c + at);
                        of_scale[i] += q * tangent;
                        store(curved + at, sum * load<Real>(s + at) * (tangent * g));
                        store(out + at, q * g);
                    });
                    for (int i = 0; i < kVectors; ++i) add(scale_sums + i * kLanes, of_scale[i]);
                });
    }

    // From u(layer) to outputs n, n + 1, ... of u(layer - 1).
    template <int kVectors, bool kTangent>
    SDFGAN_INLINE void reverse(int layer, int64_t n) {
        const int to = layer - 1;
        const T *const c = cosines(to), *const zs = z(to), *const scale = scale_ + to * width_ + n;
        const T* const joined = layer == trunk_ && p_.grad_texture ? texture_adjoint_ : nullptr;
        T* const out = u(to);
        T* const scale_sums = scale_sums_ + to * width_ + n;
        T* const shift_sums = shift_sums_ + to * width_ + n;
        product(std::integral_constant<int, kVectors>(), backward(layer), u(layer), n,
                [=](int64_t begin, auto& sums) {
                    if (joined) {
                        for_sums(begin, sums, [=](int, int64_t at, Real& sum) {
                            sum += load<Real>(joined + at);
                        });
                    }
                    Real of_scale[kVectors] = {}, of_shift[kVectors] = {};
                    for_sums(begin, sums, [&](int i, int64_t at, Real sum) {
                        Real q = sum * load<Real>(c + at);
                        if constexpr (kTangent) q -= load<Real>(out + at);
                        of_scale[i] += q * load<Real>(zs + at);
                        of_shift[i] += q;
                        store(out + at, q * load<Real>(scale + i * kLanes));
                    });
                    for (int i = 0; i < kVectors; ++i) {
                        add(scale_sums + i * kLanes, of_scale[i]);
                        add(shift_sums + i * kLanes, of_shift[i]);
                    }
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
            for (int axis = 0; axis < 3; ++axis) add(first_slot() + axis * width_ + n, sum[axis]);
        }
    }

    Shared<T>& shared_;
    const FilmSirenBackward<T>& p_;
    const int trunk_, sdf_end_, layers_;
    const int64_t array_, square_;
    const Memory memory_;
    T *sums_z_, *sines_, *cosines_, *tangents_z_, *tangents_, *u_[2], *v_[2], *texture_adjoint_;
    T* first_;
    const T *scale_ = nullptr, *shift_ = nullptr;  // of the tile's image
    T *sums_ = nullptr, *scale_sums_ = nullptr, *shift_sums_ = nullptr;
    int64_t entry_ = -1;
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
