// The ray and the colour of one pixel of one of many photographs, through a lens with radial and
// tangential distortion (Brown 1966, with OpenCV's k1, k2, p1, p2). In double throughout.
#pragma once

#include "core/common.h"
#include "kernels.h"

namespace sdfgan {

// Whether the radial part of the lens still rises everywhere up to the radius sqrt(r2): it has not
// folded. Its slope 1 + 3 k1 u + 5 k2 u^2, u = r^2, is lowest at an end or at its vertex.
SDFGAN_HD bool before_fold(double k1, double k2, double r2) {
    const double vertex = k2 > 0 ? -0.3 * k1 / k2 : 0;
    const bool within = vertex > 0 && vertex < r2;
    return 1 + r2 * (3 * k1 + 5 * k2 * r2) > 0 &&
           (!within || 1 + vertex * (3 * k1 + 5 * k2 * vertex) > 0);
}

// What the lens moves to (seen_x, seen_y), by Newton's method from there. False where it does not
// get there, or gets to a point past the fold of the lens.
template <class T>
SDFGAN_HD bool undistort(const T* lens, double seen_x, double seen_y, double& x, double& y) {
    const double k1 = lens[0], k2 = lens[1], p1 = lens[2], p2 = lens[3];
    x = seen_x, y = seen_y;
    for (int step = 0; step < 20; ++step) {
        const double r2 = x * x + y * y;
        const double radial = 1 + r2 * (k1 + r2 * k2), slope = 2 * (k1 + 2 * r2 * k2);
        const double error_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) - seen_x;
        const double error_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y - seen_y;
        const double xx = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x;
        const double xy = x * y * slope + 2 * p1 * x + 2 * p2 * y;
        const double yy = radial + y * y * slope + 6 * p1 * y + 2 * p2 * x;
        const double determinant = xx * yy - xy * xy;
        x -= (yy * error_x - xy * error_y) / determinant;
        y -= (xx * error_y - xy * error_x) / determinant;
        if (std::abs(error_x) + std::abs(error_y) < 1e-9) {
            return determinant > 0 && before_fold(k1, k2, r2);
        }
    }
    return false;
}

// The view whose pixels `pixel` is one of; it must be in [0, starts[views]).
SDFGAN_HD int64_t view_of_pixel(const int64_t* starts, int64_t views, int64_t pixel) {
    int64_t low = 0, high = views;  // starts[low] <= pixel < starts[high]
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (starts[middle] <= pixel) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

template <class T>
SDFGAN_HD void sample_pixel(const SamplePixels<T>& p, int64_t i) {
    const T nan = static_cast<T>(std::nan(""));
    const int64_t pixel = p.pixels[i];
    const bool inside = pixel >= 0 && p.views > 0 && pixel < p.starts[p.views];
    if (p.images) {
        for (int64_t c = 0; c < p.channels; ++c) {
            const int64_t at = pixel * p.channels + c;
            T color = nan;
            if (inside && pixel < p.stored) {
                color = p.bytes ? static_cast<const uint8_t*>(p.images)[at] / static_cast<T>(255)
                                : static_cast<const T*>(p.images)[at];
            }
            p.colors[i * p.channels + c] = color;
        }
    }
    T* origin = p.origins + 3 * i;
    T* direction = p.directions + 3 * i;
    for (int k = 0; k < 3; ++k) origin[k] = direction[k] = nan;
    p.radii[i] = nan;
    if (!inside) return;

    const int64_t view = view_of_pixel(p.starts, p.views, pixel), offset = pixel - p.starts[view];
    if (p.widths[view] <= 0) return;  // starts and widths that do not agree
    const T* lens = p.intrinsics + 4 * view;
    const double fx = lens[0], fy = lens[1];
    double x = (offset % p.widths[view] + 0.5 - lens[2]) / fx;
    double y = (offset / p.widths[view] + 0.5 - lens[3]) / fy;
    if (p.distortion) {
        const double seen_x = x, seen_y = y;
        if (!undistort(p.distortion + 4 * view, seen_x, seen_y, x, y)) return;
    }
    const T* camera = p.cameras + 12 * view;
    double along[3], length2 = 0;
    for (int k = 0; k < 3; ++k) {
        along[k] = x * camera[4 * k] - y * camera[4 * k + 1] - camera[4 * k + 2];
        length2 += along[k] * along[k];
    }
    for (int k = 0; k < 3; ++k) {
        origin[k] = camera[4 * k + 3];
        direction[k] = static_cast<T>(along[k] / std::sqrt(length2));
    }
    // 2/sqrt(12) pixel widths at distance 1 before the camera (Barron et al. 2021, sec. 3.1)
    p.radii[i] = static_cast<T>(1 / std::sqrt(3 * fx * fy * (1 + x * x + y * y)));
}

}  // namespace sdfgan
