// Inverse-transform sampling; core/pdf.h has the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// Samples of the piecewise-constant density of each ray; see core/pdf.h.
template <class T>
struct SamplePdf {
    const T* edges;    // [rays, bins + 1] ascending
    const T* weights;  // [rays, bins]
    const T* u;        // ascending in [0, 1]: [rays, samples], or [samples] for all rays
    T* out;            // [rays, samples] ascending
    int64_t rays;
    int64_t bins;
    int64_t samples;
    int64_t u_stride;  // from one ray's u to the next: samples or 0

    SDFGAN_FIELDS(edges, weights, u, out, rays, bins, samples, u_stride)
};

}  // namespace sdfgan
