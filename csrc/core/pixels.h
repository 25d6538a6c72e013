// The ray and the colour of one pixel of one of many photographs, through a lens with OpenCV's
// radial, rational and tangential distortion (Brown 1966), or a fisheye. In double throughout.
#pragma once

#include "core/common.h"
#include "kernels/pixels.h"

namespace sdfgan {

// With u = x^2 + y^2 a lens moves (x, y), at distance 1 before the camera, to
//     x R + 2 p1 x y + p2 (u + 2 x^2),  y R + p1 (u + 2 y^2) + 2 p2 x y,
//     R = top(u) / bottom(u) = (1 + k1 u + k2 u^2 + k3 u^3 + a u^4) / (1 + k4 u + k5 u^2 + k6 u^3).
// Of a fisheye (x, y) is the direction from the axis times the angle to it, in radians.
struct Lens {
    double top[5] = {1, 0, 0, 0, 0}, bottom[4] = {1, 0, 0, 0}, p1 = 0, p2 = 0;
};

// The lens of a row k1, k2, p1, p2, k3, k4, k5, k6, a, of which the last may be missing.
template <class T>
SDFGAN_HD Lens read_lens(const T* row, int64_t terms) {
    const auto term = [&](int64_t i) { return i < terms ? static_cast<double>(row[i]) : 0.0; };
    Lens lens;
    lens.top[1] = term(0), lens.top[2] = term(1), lens.top[3] = term(4), lens.top[4] = term(8);
    for (int i = 1; i < 4; ++i) lens.bottom[i] = term(4 + i);
    lens.p1 = term(2), lens.p2 = term(3);
    return lens;
}

// A polynomial and its derivative at u.
template <int N>
SDFGAN_HD void polynomial(const double (&factors)[N], double u, double& value, double& slope) {
    value = factors[N - 1], slope = 0;
    for (int i = N - 2; i >= 0; --i) {
        slope = slope * u + value;
        value = value * u + factors[i];
    }
}

// Whether the radial part r R(r^2) is finite and rises at r = sqrt(u).
SDFGAN_HD bool rises(const Lens& lens, double u) {
    double top, bottom, top_slope, bottom_slope;
    polynomial(lens.top, u, top, top_slope);
    polynomial(lens.bottom, u, bottom, bottom_slope);
    return bottom > 0 && top * bottom + 2 * u * (top_slope * bottom - top * bottom_slope) > 0;
}

// Whether it does so everywhere up to u: the lens has not folded. With k1 and k2 alone the slope
// 1 + 3 k1 u + 5 k2 u^2 is lowest at an end or at its vertex; otherwise it is looked at in steps.
SDFGAN_HD bool before_fold(const Lens& lens, double u) {
    const double k1 = lens.top[1], k2 = lens.top[2];
    bool simple = lens.top[3] == 0 && lens.top[4] == 0;
    for (int i = 1; i < 4; ++i) simple = simple && lens.bottom[i] == 0;
    if (simple) {
        const double vertex = k2 > 0 ? -0.3 * k1 / k2 : 0;
        return rises(lens, u) && (!(vertex > 0 && vertex < u) || rises(lens, vertex));
    }
    const int steps = 32;
    for (int i = 1; i <= steps; ++i) {
        if (!rises(lens, u * i / steps)) return false;
    }
    return true;
}

// Newton's method from (x, y) for what the lens moves to (seen_x, seen_y); false where it does not
// get there.
SDFGAN_HD bool newton(const Lens& lens, double seen_x, double seen_y, double& x, double& y) {
    const double p1 = lens.p1, p2 = lens.p2;
    for (int step = 0; step < 20; ++step) {
        const double u = x * x + y * y;
        double top, bottom, top_slope, bottom_slope;
        polynomial(lens.top, u, top, top_slope);
        polynomial(lens.bottom, u, bottom, bottom_slope);
        const double radial = top / bottom;
        const double slope = 2 * (top_slope - radial * bottom_slope) / bottom;
        const double error_x = x * radial + 2 * p1 * x * y + p2 * (u + 2 * x * x) - seen_x;
        const double error_y = y * radial + p1 * (u + 2 * y * y) + 2 * p2 * x * y - seen_y;
        const double xx = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x;
        const double xy = x * y * slope + 2 * p1 * x + 2 * p2 * y;
        const double yy = radial + y * y * slope + 6 * p1 * y + 2 * p2 * x;
        const double determinant = xx * yy - xy * xy;
        x -= (yy * error_x - xy * error_y) / determinant;
        y -= (xx * error_y - xy * error_x) / determinant;
        if (std::abs(error_x) + std::abs(error_y) < 1e-9) return determinant > 0;
    }
    return false;
}

// What the lens moves to (seen_x, seen_y): by Newton's method from there and, where that fails or
// ends past the fold of the lens, from the centre outwards. False where there is no such point.
SDFGAN_HD bool undistort(const Lens& lens, double seen_x, double seen_y, double& x, double& y) {
    for (int stages = 1; stages <= 32; stages *= 32) {
        x = stages == 1 ? seen_x : 0, y = stages == 1 ? seen_y : 0;
        bool found = true;
        for (int stage = 1; found && stage <= stages; ++stage) {
            const double share = static_cast<double>(stage) / stages;
            found = newton(lens, share * seen_x, share * seen_y, x, y);
        }
        if (found && before_fold(lens, x * x + y * y)) return true;
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
    if (!inside || (p.mask && !(pixel < p.masked && p.mask[pixel]))) return;

    const int64_t view = view_of_pixel(p.starts, p.views, pixel), offset = pixel - p.starts[view];
    if (p.widths[view] <= 0) return;  // starts and widths that do not agree
    const T* intrinsics = p.intrinsics + 4 * view;
    const double fx = intrinsics[0], fy = intrinsics[1];
    double x = (offset % p.widths[view] + 0.5 - intrinsics[2]) / fx;
    double y = (offset / p.widths[view] + 0.5 - intrinsics[3]) / fy;
    if (p.distortion) {
        const Lens lens = read_lens(p.distortion + p.terms * view, p.terms);
        const double seen_x = x, seen_y = y;
        if (!undistort(lens, seen_x, seen_y, x, y)) return;
    }
    double depth = 1, narrowing = 1;  // of a pixel of a fisheye, across the direction to the axis
    if (p.fisheye && p.fisheye[view]) {
        const double angle = std::sqrt(x * x + y * y);
        if (!(angle <= 3.14159265358979323846)) return;
        narrowing = angle > 0 ? std::sin(angle) / angle : 1;
        x *= narrowing, y *= narrowing, depth = std::cos(angle);
    }
    const T* camera = p.cameras + 12 * view;
    double along[3], length2 = 0;
    for (int k = 0; k < 3; ++k) {
        along[k] = x * camera[4 * k] - y * camera[4 * k + 1] - depth * camera[4 * k + 2];
        length2 += along[k] * along[k];
    }
    for (int k = 0; k < 3; ++k) {
        origin[k] = camera[4 * k + 3];
        direction[k] = static_cast<T>(along[k] / std::sqrt(length2));
    }
    // 2/sqrt(12) pixel widths at distance 1 before the camera (Barron et al. 2021, sec. 3.1)
    const double reach2 = depth * depth + x * x + y * y;  // 1 for a fisheye
    p.radii[i] = static_cast<T>(std::sqrt(narrowing / (3 * fx * fy * reach2)));
}

}  // namespace sdfgan
