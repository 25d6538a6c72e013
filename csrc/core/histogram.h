// Sums over the bins of histograms along one ray in one pass (mip-NeRF 360, Barron et al. 2022).
// Sums run in double: bins enter and leave them, and what is left must be zero where nothing is.
#pragma once

#include "core/common.h"
#include "kernels/histogram.h"

namespace sdfgan {

// Bin j of the others overlaps bin i where others[j] < edges[i+1] and others[j+1] > edges[i]; both
// ends of the overlapping bins move forward with i.
template <class T>
SDFGAN_HD void overlap_sums_ray(const OverlapSums<T>& p, int64_t ray) {
    const T* edges = p.edges + ray * (p.bins + 1);
    const T* others = p.others + ray * (p.other_bins + 1);
    const T* weights = p.weights + ray * p.other_bins;
    double sum = 0;
    int64_t first = 0, last = 0;  // [first, last)
    for (int64_t i = 0; i < p.bins; ++i) {
        while (last < p.other_bins && others[last] < edges[i + 1]) sum += weights[last++];
        while (first < p.other_bins && others[first + 1] <= edges[i]) sum -= weights[first++];
        p.out[ray * p.bins + i] = first < last ? static_cast<T>(sum) : 0;
    }
}

// (A w)_i = 2 sum_j w_j |m_i - m_j| + 2/3 w_i (edge_i+1 - edge_i), with the middles m.
template <class T>
SDFGAN_HD void distortion_ray(const Distortion<T>& p, int64_t ray) {
    const T* edges = p.edges + ray * (p.bins + 1);
    const T* weights = p.weights + ray * p.bins;
    T* out = p.out + ray * p.bins;
    double mass = 0, moment = 0;
    for (int64_t i = 0; i < p.bins; ++i) {
        mass += weights[i];
        moment += weights[i] * (0.5 * (edges[i] + edges[i + 1]));
    }
    double before = 0, moment_before = 0;
    for (int64_t i = 0; i < p.bins; ++i) {
        const double middle = 0.5 * (edges[i] + edges[i + 1]), weight = weights[i];
        before += weight;
        moment_before += weight * middle;
        const double apart = middle * (2 * before - mass) + (moment - 2 * moment_before);
        const double width = static_cast<double>(edges[i + 1]) - edges[i];
        out[i] = static_cast<T>(2 * apart + 2.0 / 3 * weight * width);
    }
}

}  // namespace sdfgan
