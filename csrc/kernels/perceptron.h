// Perceptrons: layers of sums with an activation between.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// A perceptron at many points; on a CPU only. Features between layers are
// max(x, 0) + constant * min(x, 0) of the sums or, if `sine`, sin(constant * x).
template <class T>
struct Perceptron {
    const T* x;                   // [count, sizes[0]]
    HostArray<const T*> weights;  // of each layer [outputs, inputs]
    HostArray<const T*> biases;   // of each layer [outputs]
    T* out;                       // [count, the last size]; unused by PerceptronBackward
    int64_t count;
    HostArray<int64_t> sizes;  // features before, between and after layers
    bool sine;
    T constant;

    SDFGAN_FIELDS(x, weights, biases, out, count, sizes, sine, constant)
};

// What a gradient by the outputs means for all else; the sums are recomputed. Any number of threads
// gives the same bits.
template <class T>
struct PerceptronBackward {
    Perceptron<T> network;
    const T* gradient;  // [count, the last size]
    T* grad_x;          // like x, or null
    T* grad_layers;     // of each layer the weights', then the biases'; or null

    SDFGAN_FIELDS(network, gradient, grad_x, grad_layers)
};

}  // namespace sdfgan
