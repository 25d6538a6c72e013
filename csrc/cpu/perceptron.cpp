// Perceptrons on tiles of points, whose features stay in cache through all layers. As in
// cpu/film_siren.h, a vector holds one feature of several points and weights are broadcast.
#include "cpu/film_siren.h"

namespace sdfgan::cpu {
namespace {

constexpr int kAtOnce = 3;  // vectors; they divide a tile on every instruction set

template <class T, class Activation>
void evaluate(const Perceptron<T>& p, int64_t begin, int64_t end, const Activation& activation) {
    using Real = typename Full<T>::Real;
    constexpr int kLanes = kVectorBytes / sizeof(T);
    const auto panels = [](int64_t outputs) { return (outputs + kPanel - 1) / kPanel; };
    const int layers = static_cast<int>(p.sizes.size) - 1;
    int64_t widest = 0;
    for (int64_t size : p.sizes) widest = max_of(widest, panels(size) * kPanel);
    const Memory memory(2 * widest * kTile * sizeof(T));
    T* const buffers[2] = {static_cast<T*>(memory.address),
                           static_cast<T*>(memory.address) + widest * kTile};
    for (; begin < end; begin += kTile) {
        for (int i = 0; i < kTile; ++i) {  // lanes past the end repeat the last point
            const T* const point = p.x + min_of(begin + i, end - 1) * p.sizes[0];
            for (int64_t k = 0; k < p.sizes[0]; ++k) buffers[0][k * kTile + i] = point[k];
        }
        const T* parameters = p.parameters;
        for (int layer = 0; layer < layers; ++layer) {
            const int64_t inputs = p.sizes[layer], outputs = panels(p.sizes[layer + 1]) * kPanel;
            const T *const x = buffers[layer & 1], *const bias = parameters + outputs * inputs;
            T* const y = buffers[~layer & 1];
            const bool last = layer == layers - 1;
            for (int64_t n = 0; n < outputs; n += kFeatures) {
                const T* const w = parameters + n / kPanel * inputs * kPanel + n % kPanel;
                for (int lane = 0; lane < kTile; lane += kAtOnce * kLanes) {
                    Real sum[kFeatures][kAtOnce];
#pragma GCC unroll 8
                    for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
                        for (int v = 0; v < kAtOnce; ++v) sum[f][v] = Real{} + bias[n + f];
                    }
#pragma GCC unroll 4
                    for (int64_t k = 0; k < inputs; ++k) {
                        Real in[kAtOnce];
#pragma GCC unroll 3
                        for (int v = 0; v < kAtOnce; ++v) {
                            in[v] = load<Real>(x + k * kTile + lane + v * kLanes);
                        }
#pragma GCC unroll 8
                        for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
                            for (int v = 0; v < kAtOnce; ++v) {
                                sum[f][v] = sum[f][v] + in[v] * w[k * kPanel + f];
                            }
                        }
                    }
#pragma GCC unroll 8
                    for (int f = 0; f < kFeatures; ++f) {
#pragma GCC unroll 3
                        for (int v = 0; v < kAtOnce; ++v) {
                            const Real value = last ? sum[f][v] : activation(sum[f][v]);
                            store(y + (n + f) * kTile + lane + v * kLanes, value);
                        }
                    }
                }
            }
            parameters = bias + outputs;
        }
        const T* const answers = buffers[layers & 1];
        for (int64_t i = begin; i < min_of<int64_t>(begin + kTile, end); ++i) {
            p.out[i] = answers[i - begin];
        }
    }
}

template <class T>
void perceptron(const Perceptron<T>& p, int64_t begin, int64_t end) {
    using Real = typename Full<T>::Real;
    const T constant = p.constant;
    if (p.sine) {
        evaluate(p, begin, end, [=](Real x) { return Full<T>::sine(x * constant); });
    } else {
        evaluate(p, begin, end, [=](Real x) {
            const auto positive = x > Real{};
            return positive ? x : x * constant;
        });
    }
}

}  // namespace

SDFGAN_LOOP(perceptron, Perceptron)

}  // namespace sdfgan::cpu
