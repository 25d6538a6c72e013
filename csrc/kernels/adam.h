// Steps of Adam; core/adam.h has the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// A step on the numbers whose gradient is not 0; the gradient is 0 afterwards. See core/adam.h.
template <class T>
struct LazyAdam {
    T* parameter;       // [count]
    T* gradient;        // [count]
    T* mean;            // [count] of gradients
    T* square;          // [count] mean of their squares
    const float* step;  // [1] number of this step, from 1
    const float* skip;  // [1] not 0: nothing changes but the gradient; or null
    int64_t count;
    double rate;
    double beta1;
    double beta2;
    double eps;

    SDFGAN_FIELDS(parameter, gradient, mean, square, step, skip, count, rate, beta1, beta2, eps)
};

}  // namespace sdfgan
