// Rays and colours of pixels of photographs; core/pixels.h has the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// Rays and colours of pixels of many photographs; see core/pixels.h.
template <class T>
struct SamplePixels {
    const T* cameras;       // [views, 3, 4] camera to world
    const T* intrinsics;    // [views, 4] fx, fy, cx, cy
    const T* distortion;    // [views, terms] k1, k2, p1, p2, k3, k4, k5, k6, a; or null
    const bool* fisheye;    // [views]; or null
    const int64_t* widths;  // [views]
    const int64_t* starts;  // [views + 1] ascending: the first pixel of each view, then of none
    const int64_t* pixels;  // [count]
    const void* images;     // [starts[views], channels] of uint8_t (`bytes`) or T; or null
    const bool* mask;       // [masked] pixels that have a ray; or null: all
    T* origins;             // [count, 3]
    T* directions;          // [count, 3]
    T* radii;               // [count]
    T* colors;              // [count, channels]
    int64_t count, views, channels, stored;  // pixels in images
    int64_t terms, masked;
    bool bytes;

    SDFGAN_FIELDS(cameras, intrinsics, distortion, fisheye, widths, starts, pixels, images, mask,
                  origins, directions, radii, colors, count, views, channels, stored, terms, masked,
                  bytes)
};

}  // namespace sdfgan
