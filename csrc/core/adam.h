// Adam (Kingma and Ba 2015, algorithm 1) of numbers that few gradients reach, such as a hash grid's
// table: with g = 0 a number and its means stay what they are (Mueller et al. 2022, section 4).
// Else
//   mean += (1 - beta1) (g - mean),  square += (1 - beta2) (g^2 - square),
//   parameter -= rate / (1 - beta1^step) mean / (sqrt(square / (1 - beta2^step)) + eps).
#pragma once

#include "core/common.h"
#include "kernels/adam.h"

namespace sdfgan {

// What all numbers of a step have in common.
template <class T>
struct AdamFactors {
    T rate, root, eps;  // `root`: sqrt(1 - beta2^step)
    T own1, own2;       // shares of the new gradient in its means
};

template <class T>
SDFGAN_HD AdamFactors<T> adam_factors(const LazyAdam<T>& p) {
    const double step = *p.step;
    return {static_cast<T>(p.rate / (1 - std::pow(p.beta1, step))),
            static_cast<T>(std::sqrt(1 - std::pow(p.beta2, step))), static_cast<T>(p.eps),
            static_cast<T>(1 - p.beta1), static_cast<T>(1 - p.beta2)};
}

template <class T>
SDFGAN_HD bool adam_skips(const LazyAdam<T>& p) {
    return p.skip && *p.skip != 0;
}

template <class T>
SDFGAN_HD void adam_number(const AdamFactors<T>& by, T gradient, T& parameter, T& mean, T& square) {
    mean += by.own1 * (gradient - mean);
    square += by.own2 * (gradient * gradient - square);
    parameter -= by.rate * mean / (std::sqrt(square) / by.root + by.eps);
}

}  // namespace sdfgan
