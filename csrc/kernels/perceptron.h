// Perceptrons of one output.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// A perceptron of one output at many points; on a CPU only. Features between layers are
// max(x, 0) + constant * min(x, 0) of the sums or, if `sine`, sin(constant * x).
template <class T>
struct Perceptron {
    const T* x;           // [count, sizes[0]]
    const T* parameters;  // of each layer, in panels of 8 outputs, the last filled up with zeros:
                          // weights [panels, inputs, 8], then biases [panels, 8]
    T* out;               // [count]
    int64_t count;
    HostArray<int64_t> sizes;  // features before, between and after layers; the last is 1
    bool sine;
    T constant;

    SDFGAN_FIELDS(x, parameters, out, count, sizes, sine, constant)
};

}  // namespace sdfgan
