// Losses of histograms along rays; core/histogram.h has the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// out[i] = sum of the weights of the bins of the other histogram that overlap bin i: its own
// transpose when the histograms change places; see core/histogram.h.
template <class T>
struct OverlapSums {
    const T* edges;    // [rays, bins + 1] ascending
    const T* others;   // [rays, other_bins + 1] ascending
    const T* weights;  // [rays, other_bins]
    T* out;            // [rays, bins]
    int64_t rays, bins, other_bins;

    SDFGAN_FIELDS(edges, others, weights, out, rays, bins, other_bins)
};

// out = A weights, with weights . A weights / 2 the distortion loss; see core/histogram.h.
template <class T>
struct Distortion {
    const T* edges;    // [rays, bins + 1] ascending
    const T* weights;  // [rays, bins]
    T* out;            // [rays, bins]
    int64_t rays, bins;

    SDFGAN_FIELDS(edges, weights, out, rays, bins)
};

}  // namespace sdfgan
