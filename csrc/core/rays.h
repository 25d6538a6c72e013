// The ray through a pixel's centre, clipped to the ball around the world origin in which the
// object lives. Conventions as in sdfgan/cameras.py: camera x right, y up, looks along -z.
#pragma once

#include "core/common.h"
#include "kernels.h"

namespace sdfgan {

// near = far where the ray misses the ball: its closest approach. A pixel of no camera gives NaN.
template <class T>
SDFGAN_HD void generate_ray(const GenerateRays<T>& p, int64_t ray) {
    T* origin = p.origins + 3 * ray;
    T* direction = p.directions + 3 * ray;
    const int64_t pixel = p.pixels[ray];
    if (pixel < 0 || pixel >= p.camera_count * p.height * p.width) {
        for (int i = 0; i < 3; ++i) origin[i] = direction[i] = T(NAN);
        p.near[ray] = p.far[ray] = T(NAN);
        return;
    }
    const T* camera = p.cameras + pixel / p.width / p.height * 12;
    const int64_t column = pixel % p.width, row = pixel / p.width % p.height;
    const T x = (2 * (column + T(0.5)) - p.width) / p.height;  // in [-aspect, aspect]
    const T y = 1 - 2 * (row + T(0.5)) / p.height;

    T length2 = 0;
    for (int i = 0; i < 3; ++i) {
        const T* m = camera + 4 * i;  // world coordinate i of the x, y, z axes and of the centre
        origin[i] = m[3];
        direction[i] = x * m[0] + y * m[1] - p.plane_distance * m[2];
        length2 += direction[i] * direction[i];
    }
    const T inverse_length = 1 / std::sqrt(length2);
    T closest = 0;  // distance along the ray to its point nearest to the world origin
    for (int i = 0; i < 3; ++i) {
        direction[i] *= inverse_length;
        closest -= origin[i] * direction[i];
    }
    T miss2 = 0;  // squared length of that point; from its coordinates, so that nothing cancels
    for (int i = 0; i < 3; ++i) {
        const T nearest = origin[i] + closest * direction[i];
        miss2 += nearest * nearest;
    }
    const T half_chord = std::sqrt(max_of(p.radius * p.radius - miss2, T(0)));
    p.near[ray] = max_of(closest - half_chord, T(0));  // nothing behind the camera counts
    p.far[ray] = max_of(closest + half_chord, T(0));
}

}  // namespace sdfgan
