// Where the edges of layers lie: core/edges.h has the maths of one.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// N layers of the pixels of square images, sorted by pixel, then front to back. A layer's edge is
// where its sdf falls to 0, to first order a line in the image. That of a hit may be told by a miss
// beside it; see core/edges.h.
template <class T>
struct LayerEdges {
    const int64_t* pixel;  // [layers] (b R + row) R + column
    const uint8_t* hit;    // [layers] the ray through the pixel's centre meets the surface
    const uint8_t* opaque;
    const uint8_t* near;  // [layers] those that count
    const T* t;           // [layers] along the ray
    const T* nearest;     // [layers] sdf
    const T* normal;      // [layers, 3] gradient of the sdf
    const T* size;        // [layers] side of a pixel there
    const T* camera;      // [images, 3, 4] camera to world
    int64_t* source;      // [layers] whose edge it is: mostly its own
    T* nearest_out;       // [layers] sdf at a layer's centre that this edge tells
    T* area;              // [layers] of the pixel that the layer covers; 1 where it is opaque
    int64_t layers;
    int64_t resolution;
    bool all_hits;  // else only those that are not opaque, in parts that are thin

    SDFGAN_FIELDS(pixel, hit, opaque, near, t, nearest, normal, size, camera, source, nearest_out,
                  area, layers, resolution, all_hits)
};

}  // namespace sdfgan
