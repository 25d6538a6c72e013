// Perceptrons on tiles of points, whose features stay in cache through all layers, forward and
// back. A vector holds several features of one point. Then W h, W^T u and the sum of u h^T are one
// kind of product, without transposition: rows of scalars times columns of vectors.
#include <atomic>
#include <memory>
#include <vector>

#include "cpu/film_siren.h"

namespace sdfgan::cpu {
namespace {

constexpr int64_t kSlots = 16;        // at most; each has sums as large as the network
constexpr int64_t kTilesOfSlot = 4;   // at least, or adding up the slots costs more than it saves
constexpr int64_t kTilesOfPiece = 8;  // of values, taken by one thread

constexpr int64_t round_up(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

template <class T>
struct Layer {
    int64_t inputs, outputs;
    int64_t input_row, output_row;  // from a point's features to the next one's
    int64_t input_vectors, output_vectors;
    int64_t sums;             // where its gradient begins in a slot: [outputs, inputs], then biases
    const T *weights, *bias;  // [output vectors, inputs, kLanes] and [output vectors, kLanes]
    const T* transposed;      // [input vectors, outputs, kLanes]
};

// The layers, their weights in panels of a vector, and how the points are cut: the same for any
// number of threads.
template <class T>
struct Plan {
    static constexpr int kLanes = kVectorBytes / sizeof(T);
    // Rows of products come in blocks of kFeatures.
    static constexpr int64_t kUnit = kLanes > kFeatures ? kLanes : kFeatures;

    explicit Plan(const Perceptron<T>& p, bool back) : p(p) {
        size_t values = 0;
        for (int64_t i = 0; i + 1 < p.sizes.size; ++i) {
            Layer<T> layer{};
            layer.inputs = p.sizes[i], layer.outputs = p.sizes[i + 1];
            layer.input_row = row(layer.inputs), layer.output_row = row(layer.outputs);
            layer.input_vectors = round_up(layer.inputs, kLanes) / kLanes;
            layer.output_vectors = round_up(layer.outputs, kLanes) / kLanes;
            layer.sums = sums;
            sums += round_up(layer.outputs, kUnit) * layer.input_vectors * kLanes;
            sums += layer.output_vectors * kLanes;
            values += (layer.inputs + 1) * layer.output_vectors * kLanes;
            if (back) values += layer.outputs * layer.input_vectors * kLanes;
            layers.push_back(layer);
        }
        memory.reset(new Memory(values * sizeof(T)));
        T* at = static_cast<T*>(memory->address);
        for (size_t i = 0; i < layers.size(); ++i) {
            Layer<T>& layer = layers[i];
            const T* const w = p.weights[i];
            const int64_t inputs = layer.inputs, outputs = layer.outputs;
            layer.weights = at;
            at = pack(at, layer.output_vectors, outputs, inputs, w, 1, inputs);
            layer.bias = at;
            at = pack(at, layer.output_vectors, outputs, 1, p.biases[i], 1, 1);
            layer.transposed = at;
            if (back) at = pack(at, layer.input_vectors, inputs, outputs, w, inputs, 1);
        }
        tiles = (p.count + kTile - 1) / kTile;
    }

    // An odd number of vectors, lest rows fall into the same sets of a cache.
    static int64_t row(int64_t size) { return (round_up(size, kUnit) / kLanes | 1) * kLanes; }

    // from[k * along + n * across] for n < size and k < depth, to [vectors, depth, kLanes]
    static T* pack(T* to, int64_t vectors, int64_t size, int64_t depth, const T* from,
                   int64_t along, int64_t across) {
        for (int64_t v = 0; v < vectors; ++v) {
            for (int64_t k = 0; k < depth; ++k) {
                for (int64_t n = v * kLanes; n < (v + 1) * kLanes; ++n) {
                    *to++ = n < size ? from[k * along + n * across] : T(0);
                }
            }
        }
        return to;
    }

    const Perceptron<T>& p;
    std::vector<Layer<T>> layers;
    int64_t sums = 0, tiles = 0;
    std::unique_ptr<Memory> memory;
    std::atomic<int64_t> next{0};
};

template <class T>
struct MatrixProduct {
    using Real = typename Full<T>::Real;
    static constexpr int kLanes = Plan<T>::kLanes;

    // finish(row, first output, sums [kFeatures][vectors]) with
    // sum over k of a[row * a_row + k * a_along] b[vector * b_across + k * b_along]
    template <class Finish>
    static SDFGAN_INLINE void run(int64_t rows, int64_t vectors, int64_t depth, const T* a,
                                  int64_t a_row, int64_t a_along, const T* b, int64_t b_across,
                                  int64_t b_along, const Finish& finish) {
        for (int64_t v = 0; v < vectors;) {
            const int64_t rest = vectors - v;
            const int at_once = rest % 3 == 0 ? 3 : rest >= 2 ? 2 : 1;
            const auto columns = [&](auto count) {
                constexpr int kVectors = decltype(count)::value;
                for (int64_t row = 0; row < rows; row += kFeatures) {
                    Real sum[kFeatures][kVectors];
                    block<kVectors>(depth, a + row * a_row, a_row, a_along, b + v * b_across,
                                    b_across, b_along, sum);
                    finish(row, v * kLanes, sum);
                }
            };
            if (at_once == 3) columns(std::integral_constant<int, 3>());
            if (at_once == 2) columns(std::integral_constant<int, 2>());
            if (at_once == 1) columns(std::integral_constant<int, 1>());
            v += at_once;
        }
    }

    template <int kVectors>
    static SDFGAN_INLINE void block(int64_t depth, const T* a, int64_t a_row, int64_t a_along,
                                    const T* b, int64_t b_across, int64_t b_along,
                                    Real (&out)[kFeatures][kVectors]) {
        Real sum[kFeatures][kVectors];
#pragma GCC unroll 8
        for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
            for (int v = 0; v < kVectors; ++v) sum[f][v] = Real{};
        }
#pragma GCC unroll 4
        for (int64_t k = 0; k < depth; ++k) {
            Real in[kVectors];
#pragma GCC unroll 3
            for (int v = 0; v < kVectors; ++v) in[v] = load<Real>(b + v * b_across + k * b_along);
#pragma GCC unroll 8
            for (int f = 0; f < kFeatures; ++f) {
                const T factor = a[f * a_row + k * a_along];
#pragma GCC unroll 3
                for (int v = 0; v < kVectors; ++v) sum[f][v] = sum[f][v] + in[v] * factor;
            }
        }
#pragma GCC unroll 8
        for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
            for (int v = 0; v < kVectors; ++v) out[f][v] = sum[f][v];
        }
    }

    // body(feature, vector, sum) for the sums of a block
    template <int kVectors, class Body>
    static SDFGAN_INLINE void for_sums(Real (&sum)[kFeatures][kVectors], const Body& body) {
#pragma GCC unroll 8
        for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
            for (int v = 0; v < kVectors; ++v) body(f, v, sum[f][v]);
        }
    }
};

// A thread's tile. T is float or double; Activation gives values, and slopes too.
template <class T, class Activation>
class Worker : MatrixProduct<T> {
    using Real = typename Full<T>::Real;
    using MatrixProduct<T>::kLanes, MatrixProduct<T>::run, MatrixProduct<T>::for_sums;

  public:
    // `back`: features and slopes of all layers are kept.
    Worker(Plan<T>& plan, const Activation& activation, bool back)
        : plan_(plan),
          p_(plan.p),
          activation_(activation),
          memory_(values(plan, back) * sizeof(T)) {
        T* at = static_cast<T*>(memory_.address);
        std::memset(at, 0, values(plan, back) * sizeof(T));
        const auto take = [&](int64_t size) {
            T* const taken = at;
            at += size * kTile;
            return taken;
        };
        const int64_t widest = widest_row(plan);
        for (T*& buffer : buffers_) buffer = take(widest);
        for (size_t i = 0; i < plan.layers.size(); ++i) {
            const int64_t row = plan.layers[i].input_row;
            inputs_.push_back(back ? Inputs{take(row), take(row)}
                                   : Inputs{buffers_[i & 1], nullptr});
        }
    }

    void values_of_tile(int64_t begin) {
        read_rows(p_.x, p_.sizes[0], begin, inputs_[0].features, plan_.layers[0].input_row);
        const size_t last = plan_.layers.size() - 1;
        for (size_t i = 0; i < last; ++i) layer<false>(i);
        T* const out = buffers_[(last + 1) & 1];
        const Layer<T>& layer = plan_.layers[last];
        sums(last, [&](int64_t at, Real sum) { store(out + at, sum); });
        write_rows(out, layer.output_row, layer.outputs, begin, p_.out);
    }

    void gradients_of_tile(const PerceptronBackward<T>& p, int64_t begin, T* slot) {
        read_rows(p_.x, p_.sizes[0], begin, inputs_[0].features, plan_.layers[0].input_row);
        const size_t last = plan_.layers.size() - 1;
        for (size_t i = 0; i < last; ++i) layer<true>(i);
        read_rows(p.gradient, plan_.layers[last].outputs, begin, buffers_[last & 1],
                  plan_.layers[last].output_row);
        for (size_t i = last + 1; i-- > 0;) {
            if (p.grad_layers) add_gradient(i, slot + plan_.layers[i].sums);
            if (i > 0 || p.grad_x) reverse(i);
        }
        if (p.grad_x)
            write_rows(buffers_[1], plan_.layers[0].input_row, p_.sizes[0], begin, p.grad_x);
    }

  private:
    struct Inputs {
        T *features, *slopes;  // of the activation that they come from
    };

    static int64_t widest_row(const Plan<T>& plan) {
        int64_t widest = 0;
        for (int64_t size : plan.p.sizes) widest = max_of(widest, Plan<T>::row(size));
        return widest;
    }

    static size_t values(const Plan<T>& plan, bool back) {
        int64_t rows = 2 * widest_row(plan);
        for (const Layer<T>& layer : plan.layers) rows += back ? 2 * layer.input_row : 0;
        return rows * kTile;
    }

    // Rows of an array [count, size]; those past the end are zero, and so are their gradients.
    void read_rows(const T* from, int64_t size, int64_t begin, T* to, int64_t row) {
        count_ = min_of<int64_t>(kTile, p_.count - begin);
        points_ = round_up(count_, kFeatures);
        for (int64_t i = 0; i < points_; ++i) {
            T* const out = to + i * row;
            const T* const in = from + (begin + i) * size;
            const int64_t known = i < count_ ? size : 0;
            std::memcpy(out, in, known * sizeof(T));
            std::memset(out + known, 0, (row - known) * sizeof(T));
        }
    }

    void write_rows(const T* from, int64_t row, int64_t size, int64_t begin, T* to) const {
        for (int64_t i = 0; i < count_; ++i) {
            std::memcpy(to + (begin + i) * size, from + i * row, size * sizeof(T));
        }
    }

    // finish(where in the outputs, a vector of a layer's sums)
    template <class Finish>
    SDFGAN_INLINE void sums(size_t index, const Finish& finish) {
        const Layer<T>& layer = plan_.layers[index];
        const int64_t row = layer.output_row;
        const T* const bias = layer.bias;
        run(points_, layer.output_vectors, layer.inputs, inputs_[index].features, layer.input_row,
            1, layer.weights, layer.inputs * kLanes, kLanes,
            [=](int64_t point, int64_t n, auto& block) {
                for_sums(block, [=](int f, int v, Real sum) {
                    const int64_t at = n + v * kLanes;
                    finish((point + f) * row + at, sum + load<Real>(bias + at));
                });
            });
    }

    template <bool kBack>
    void layer(size_t index) {
        T *const out = inputs_[index + 1].features, *const slopes = inputs_[index + 1].slopes;
        const Activation activation = activation_;
        sums(index, [=](int64_t at, Real sum) {
            if constexpr (kBack) {
                Real value, slope;
                activation.both(sum, value, slope);
                store(out + at, value);
                store(slopes + at, slope);
            } else {
                store(out + at, activation(sum));
            }
        });
    }

    // The gradients by a layer's sums are in buffers_[index & 1].
    void add_gradient(size_t index, T* slot) {
        const Layer<T>& layer = plan_.layers[index];
        const T* const u = buffers_[index & 1];
        const int64_t row = layer.output_row, width = layer.input_vectors * kLanes;
        const int64_t rows = round_up(layer.outputs, kFeatures);
        run(rows, layer.input_vectors, points_, u, 1, row, inputs_[index].features, kLanes,
            layer.input_row, [=](int64_t n, int64_t k, auto& block) {
                for_sums(block, [=](int f, int v, Real sum) {
                    T* const at = slot + (n + f) * width + k + v * kLanes;
                    store(at, load<Real>(at) + sum);
                });
            });
        T* const biases = slot + round_up(layer.outputs, Plan<T>::kUnit) * width;
        for (int64_t n = 0; n < layer.output_vectors * kLanes; n += kLanes) {
            Real sum = load<Real>(biases + n);
            for (int64_t i = 0; i < points_; ++i) sum += load<Real>(u + i * row + n);
            store(biases + n, sum);
        }
    }

    // To those by the sums of the layer before, in the other buffer; or by the inputs of all.
    void reverse(size_t index) {
        const Layer<T>& layer = plan_.layers[index];
        T* const out = buffers_[~index & 1];
        const T* const slopes = index > 0 ? inputs_[index].slopes : nullptr;
        const int64_t row = layer.input_row;
        run(points_, layer.input_vectors, layer.outputs, buffers_[index & 1], layer.output_row, 1,
            layer.transposed, layer.outputs * kLanes, kLanes,
            [=](int64_t point, int64_t n, auto& block) {
                for_sums(block, [=](int f, int v, Real sum) {
                    const int64_t at = (point + f) * row + n + v * kLanes;
                    store(out + at, slopes ? sum * load<Real>(slopes + at) : sum);
                });
            });
    }

    Plan<T>& plan_;
    const Perceptron<T>& p_;
    const Activation activation_;
    const Memory memory_;
    T* buffers_[2];
    std::vector<Inputs> inputs_;      // of each layer
    int64_t count_ = 0, points_ = 0;  // of the tile; rounded up to blocks
};

template <class T>
struct Rectifier {
    using Real = typename Full<T>::Real;
    T constant;

    SDFGAN_INLINE Real operator()(Real x) const {
        const auto positive = x > Real{};
        return positive ? x : x * constant;
    }
    SDFGAN_INLINE void both(Real x, Real& value, Real& slope) const {
        const auto positive = x > Real{};
        value = positive ? x : x * constant;
        slope = positive ? Real{} + T(1) : Real{} + constant;
    }
};

template <class T>
struct Sine {
    using Real = typename Full<T>::Real;
    T constant;

    SDFGAN_INLINE Real operator()(Real x) const { return sine_of(x * constant); }
    SDFGAN_INLINE void both(Real x, Real& value, Real& slope) const {
        value = sine_of(x * constant);
        slope = cosine_of(x * constant) * constant;
    }
};

// function(activation) with that of the network.
template <class T, class Function>
void with_activation(const Perceptron<T>& p, const Function& function) {
    p.sine ? function(Sine<T>{p.constant}) : function(Rectifier<T>{p.constant});
}

// body() on each of at most `threads` threads
template <class Body>
void on_threads(int64_t threads, const Body& body) {
    run_threads(
        static_cast<int>(threads), const_cast<Body*>(&body), [](void*, int) {},
        [](void* context) { (*static_cast<const Body*>(context))(); });
}

template <class T>
void perceptron(const Perceptron<T>& p, int threads) {
    Plan<T> plan(p, false);
    const int64_t pieces = (plan.tiles + kTilesOfPiece - 1) / kTilesOfPiece;
    with_activation(p, [&](auto activation) {
        on_threads(min_of<int64_t>(threads, pieces), [&] {
            Worker<T, decltype(activation)> worker(plan, activation, false);
            for (int64_t piece; (piece = plan.next.fetch_add(1)) < pieces;) {
                const int64_t end = min_of(p.count, (piece + 1) * kTilesOfPiece * kTile);
                for (int64_t at = piece * kTilesOfPiece * kTile; at < end; at += kTile) {
                    worker.values_of_tile(at);
                }
            }
        });
    });
}

// From sums that lie as a Plan says, one after the other for each slot.
template <class T>
void add_slots(const Plan<T>& plan, const T* sums, int64_t slots, T* out) {
    for (const Layer<T>& layer : plan.layers) {
        const int64_t width = layer.input_vectors * Plan<T>::kLanes;
        const int64_t biases = layer.sums + round_up(layer.outputs, Plan<T>::kUnit) * width;
        const auto add = [&](int64_t from, int64_t size) {
            for (int64_t i = 0; i < size; ++i) out[i] = 0;
            for (int64_t slot = 0; slot < slots; ++slot) {
                const T* const in = sums + slot * plan.sums + from;
                for (int64_t i = 0; i < size; ++i) out[i] += in[i];
            }
            out += size;
        };
        for (int64_t n = 0; n < layer.outputs; ++n) add(layer.sums + n * width, layer.inputs);
        add(biases, layer.outputs);
    }
}

template <class T>
void perceptron_backward(const PerceptronBackward<T>& p, int threads) {
    Plan<T> plan(p.network, true);
    const int64_t tiles = plan.tiles;
    const int64_t slots = tiles ? max_of<int64_t>(1, min_of(kSlots, tiles / kTilesOfSlot)) : 0;
    const int64_t size = p.grad_layers ? plan.sums : 0;
    const Memory memory((slots * size + 1) * sizeof(T));
    T* const sums = static_cast<T*>(memory.address);
    with_activation(p.network, [&](auto activation) {
        on_threads(min_of<int64_t>(threads, max_of<int64_t>(slots, 1)), [&] {
            Worker<T, decltype(activation)> worker(plan, activation, true);
            for (int64_t slot; (slot = plan.next.fetch_add(1)) < slots;) {
                T* const own = sums + slot * size;
                std::memset(own, 0, size * sizeof(T));
                for (int64_t tile = slot * tiles / slots; tile < (slot + 1) * tiles / slots;
                     ++tile) {
                    worker.gradients_of_tile(p, tile * kTile, own);
                }
            }
        });
    });
    if (p.grad_layers) add_slots(plan, sums, slots, p.grad_layers);
}

}  // namespace

#define SDFGAN_PERCEPTRON(T)                                                               \
    void SDFGAN_LEVEL(perceptron_)(const Perceptron<T>& p, int threads) {                  \
        perceptron(p, threads);                                                            \
    }                                                                                      \
    void SDFGAN_LEVEL(perceptron_backward_)(const PerceptronBackward<T>& p, int threads) { \
        perceptron_backward(p, threads);                                                   \
    }
SDFGAN_PERCEPTRON(float)
SDFGAN_PERCEPTRON(double)

}  // namespace sdfgan::cpu
