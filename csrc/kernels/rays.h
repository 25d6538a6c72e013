// Rays of cameras; core/rays.h has the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// Rays through pixel centres, clipped to the ball; see core/rays.h.
template <class T>
struct GenerateRays {
    const T* cameras;       // [cameras, 3, 4] camera to world
    const int64_t* pixels;  // [rays] (b*height + row)*width + column; outside the images: NaN rays
    T* origins;             // [rays, 3]
    T* directions;          // [rays, 3] unit
    T* near;                // [rays]
    T* far;                 // [rays]
    int64_t rays;
    int64_t camera_count;
    int64_t height;
    int64_t width;
    T plane_distance;  // 1/tan(fov/2)
    T radius;
    const T* radii;  // [camera_count] in its place, or null

    SDFGAN_FIELDS(cameras, pixels, origins, directions, near, far, rays, camera_count, height,
                  width, plane_distance, radius, radii)
};

}  // namespace sdfgan
