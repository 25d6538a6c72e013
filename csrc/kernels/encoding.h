// Sines and cosines of coordinates; core/encoding.h has the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// out = [x?, sin(x 2^0), cos(x 2^0), sin(x 2^1), ...], each of `dims` values; see core/encoding.h.
template <class T>
struct PositionalEncoding {
    const T* x;  // [points, dims]
    T* out;      // [points, width]
    int64_t points;
    int64_t dims;
    int64_t width;  // (include_input + 2 * octaves) * dims
    int octaves;
    bool include_input;
    bool times_pi;

    SDFGAN_FIELDS(x, out, points, dims, width, octaves, include_input, times_pi)
};

}  // namespace sdfgan
