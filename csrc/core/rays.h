// The ray through a pixel's centre, clipped to the ball around the world origin in which the
// object lives. Conventions as in sdfgan/cameras.py: camera x right, y up, looks along -z.
#pragma once

#include "core/common.h"
#include "kernels/rays.h"

namespace sdfgan {

template <class T>
struct PixelRay {
    T origin[3], direction[3];
    T near, far;  // equal where the ray misses the ball: its closest approach
};

// Camera [3, 4] camera to world; plane_distance = 1/tan(fov/2).
template <class T>
SDFGAN_HD PixelRay<T> pixel_ray(const T* camera, int64_t column, int64_t row, int64_t height,
                                int64_t width, T plane_distance, T radius) {
    PixelRay<T> ray;
    const T x = (2 * (column + T(0.5)) - width) / height;  // in [-aspect, aspect]
    const T y = 1 - 2 * (row + T(0.5)) / height;
    T length2 = 0;
    for (int i = 0; i < 3; ++i) {
        const T* m = camera + 4 * i;  // world coordinate i of the x, y, z axes and of the centre
        ray.origin[i] = m[3];
        ray.direction[i] = x * m[0] + y * m[1] - plane_distance * m[2];
        length2 += ray.direction[i] * ray.direction[i];
    }
    const T inverse_length = 1 / std::sqrt(length2);
    T closest = 0;  // distance along the ray to its point nearest to the world origin
    for (int i = 0; i < 3; ++i) {
        ray.direction[i] *= inverse_length;
        closest -= ray.origin[i] * ray.direction[i];
    }
    T miss2 = 0;  // squared length of that point; from its coordinates, so that nothing cancels
    for (int i = 0; i < 3; ++i) {
        const T nearest = ray.origin[i] + closest * ray.direction[i];
        miss2 += nearest * nearest;
    }
    const T half_chord = std::sqrt(max_of(radius * radius - miss2, T(0)));
    ray.near = max_of(closest - half_chord, T(0));  // nothing behind the camera counts
    ray.far = max_of(closest + half_chord, T(0));
    return ray;
}

// The radius of the ball of an image.
template <class P>
SDFGAN_HD auto radius_of(const P& p, int64_t image) {
    return p.radii ? p.radii[image] : p.radius;
}

// A pixel of no camera gives NaN.
template <class T>
SDFGAN_HD void generate_ray(const GenerateRays<T>& p, int64_t index) {
    T* origin = p.origins + 3 * index;
    T* direction = p.directions + 3 * index;
    const int64_t pixel = p.pixels[index];
    if (pixel < 0 || pixel >= p.camera_count * p.height * p.width) {
        for (int i = 0; i < 3; ++i) origin[i] = direction[i] = T(NAN);
        p.near[index] = p.far[index] = T(NAN);
        return;
    }
    const int64_t camera = pixel / p.width / p.height;
    const PixelRay<T> ray =
        pixel_ray(p.cameras + 12 * camera, pixel % p.width, pixel / p.width % p.height, p.height,
                  p.width, p.plane_distance, radius_of(p, camera));
    for (int i = 0; i < 3; ++i) {
        origin[i] = ray.origin[i];
        direction[i] = ray.direction[i];
    }
    p.near[index] = ray.near;
    p.far[index] = ray.far;
}

}  // namespace sdfgan
