// Inverse-transform sampling of a piecewise-constant density along a ray: bin j spans
// edges[j]..edges[j+1] and holds the probability weights[j] / sum(weights).
#pragma once

#include "core/common.h"
#include "kernels/pdf.h"

namespace sdfgan {

// Weights that are negative, NaN or infinite count as zero.
template <class T>
SDFGAN_HD double usable_weight(T weight) {
    const double w = static_cast<double>(weight);
    return w > 0 && w - w == 0 ? w : 0;  // inf - inf is NaN
}

// What weights of that sum are multiplied by, so that neither sums leave the range of a double
// above nor products below.
SDFGAN_HD double scale_of_weights(double total) {
    if (!(total - total == 0)) return 0x1p-64;
    return total > 0 && total < 0x1p-512 ? 0x1p512 : 1;
}

// The samples of one ray. Within a bin a sample is placed by the exact remainder of u, so the
// result is ascending and follows the density without bias. A ray without any weight is uniform
// over [edges[0], edges[bins]].
template <class T>
SDFGAN_HD void sample_pdf_ray(const SamplePdf<T>& p, int64_t ray) {
    const T* edges = p.edges + ray * (p.bins + 1);
    const T* weights = p.weights + ray * p.bins;
    const T* u = p.u + ray * p.u_stride;
    T* out = p.out + ray * p.samples;

    double total = 0;
    for (int64_t j = 0; j < p.bins; ++j) total += usable_weight(weights[j]);
    const bool uniform = total == 0;
    const double scale = scale_of_weights(total);
    if (scale != 1) {
        total = 0;
        for (int64_t j = 0; j < p.bins; ++j) total += usable_weight(weights[j]) * scale;
    }
    if (uniform) total = 1;

    int64_t bin = 0;
    double below = 0;  // cdf before the bin

    // Of the bin.
    double weight = uniform ? 1 : usable_weight(weights[0]) * scale;
    for (int64_t i = 0; i < p.samples; ++i) {
        const double target = min_of(max_of(static_cast<double>(u[i]), 0.0), 1.0) * total;
        // u = 1 ends in the last bin with weight, since this sum and the one above round alike.
        while (!uniform && bin + 1 < p.bins && (weight == 0 || below + weight < target)) {
            below += weight;
            weight = usable_weight(weights[++bin]) * scale;
        }
        const T left = edges[bin], right = edges[uniform ? p.bins : bin + 1];
        const T share = static_cast<T>(min_of((target - below) / weight, 1.0));
        out[i] = min_of(left + (right - left) * share, right);  // rounding may pass `right`
    }
}

}  // namespace sdfgan
