// Spherical harmonics of degrees 1, 2, 4, ... 2^(levels-1) and orders 0 to the degree, as
// polynomials N Q_lm(z) (x + iy)^m, each times exp(-l (l + 1) roughness / 2) (Ref-NeRF, Verbin et
// al. 2022, arXiv:2112.03907, eq. 8). For kLanes directions at a time, so that loops vectorise.
//
// P_lm = N Q_lm by the recurrence over l, from P_mm:  P_lm = a z P_{l-1,m} - b P_{l-2,m}.
// table: [degree + 1] the P_mm; then for each m, for each l from m + 1 to degree, the pair a, b.
#pragma once

#include "core/exponential.h"
#include "kernels/integrated.h"

namespace sdfgan {

constexpr int kMostLevels = 5;

// Directions [first, first + count), count <= kLanes.
template <bool kBackward, int kLanes, class T>
SDFGAN_HD void harmonics(const IntegratedDirectionalEncoding<T>& p, int64_t first, int count) {
    const int degree = 1 << (p.levels - 1);
    T x[kLanes], y[kLanes], z[kLanes], damping[kMostLevels][kLanes];
    for (int i = 0; i < kLanes; ++i) {
        const int64_t row = first + (i < count ? i : 0);
        x[i] = p.directions[3 * row], y[i] = p.directions[3 * row + 1],
        z[i] = p.directions[3 * row + 2];
        for (int level = 0; level < p.levels; ++level) {
            const int l = 1 << level;
            damping[level][i] = exp_minus(static_cast<T>(l * (l + 1)) / 2 * p.roughness[row]);
        }
    }
    T re[kLanes], im[kLanes];                // (x + iy)^m
    T re_before[kLanes], im_before[kLanes];  // ^(m - 1)
    T gx[kLanes], gy[kLanes], gz[kLanes], gr[kLanes];
    for (int i = 0; i < kLanes; ++i) {
        re[i] = 1, im[i] = re_before[i] = im_before[i] = 0;
        gx[i] = gy[i] = gz[i] = gr[i] = 0;
    }
    const T* pair = p.table + degree + 1;
    for (int m = 0; m <= degree; ++m) {
        T now[kLanes], before[kLanes], slope[kLanes], slope_before[kLanes];  // P_lm, and by z
        for (int i = 0; i < kLanes; ++i) {
            now[i] = p.table[m];
            before[i] = slope[i] = slope_before[i] = 0;
        }
        for (int l = m, level = 0; l <= degree; ++l) {
            if (l > m) {
                const T a = pair[0], b = pair[1];
                pair += 2;
                for (int i = 0; i < kLanes; ++i) {
                    const T next = a * z[i] * now[i] - b * before[i];
                    const T next_slope = a * (now[i] + z[i] * slope[i]) - b * slope_before[i];
                    before[i] = now[i], now[i] = next;
                    slope_before[i] = slope[i], slope[i] = next_slope;
                }
            }
            while ((1 << level) < l) ++level;
            if ((1 << level) != l) continue;
            const int64_t column = l - 1 + level + m, imaginary = p.width / 2;
            if constexpr (!kBackward) {
                for (int i = 0; i < count; ++i) {
                    T* out = p.out + (first + i) * p.width + column;
                    const T value = damping[level][i] * now[i];
                    out[0] = value * re[i];
                    out[imaginary] = value * im[i];
                }
            } else {
                const T decay = -static_cast<T>(l * (l + 1)) / 2;
                for (int i = 0; i < kLanes; ++i) {
                    const T* grad = p.grad_out + (first + (i < count ? i : 0)) * p.width + column;
                    const T g = grad[0], h = grad[imaginary], d = damping[level][i];
                    const T whole = g * re[i] + h * im[i], value = d * now[i];
                    gx[i] += value * m * (g * re_before[i] + h * im_before[i]);
                    gy[i] += value * m * (h * re_before[i] - g * im_before[i]);
                    gz[i] += d * slope[i] * whole;
                    gr[i] += decay * value * whole;
                }
            }
        }
        for (int i = 0; i < kLanes; ++i) {
            const T r = re[i] * x[i] - im[i] * y[i], j = re[i] * y[i] + im[i] * x[i];
            re_before[i] = re[i], im_before[i] = im[i];
            re[i] = r, im[i] = j;
        }
    }
    if constexpr (kBackward) {
        for (int i = 0; i < count; ++i) {
            T* grad = p.grad_directions + 3 * (first + i);
            grad[0] = gx[i], grad[1] = gy[i], grad[2] = gz[i];
            p.grad_roughness[first + i] = gr[i];
        }
    }
}

}  // namespace sdfgan
