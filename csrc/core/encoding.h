// Sine and cosine of x * 2^octave or pi * x * 2^octave, for positional encodings (Mildenhall et
// al. 2020, eq. 4). Both the scaling and the reduction by whole turns are exact where pi is a
// factor, so high octaves do not lose digits.
#pragma once

#include "core/common.h"

namespace sdfgan {

// Taylor series on |a| <= pi/4; the first term left out is below 2e-9. No branches: vectorises.
SDFGAN_HD void sincos_quarter(float a, float& sine, float& cosine) {
    const float z = a * a;
    sine = a + a * z * (-1.f / 6 + z * (1.f / 120 + z * (-1.f / 5040 + z * (1.f / 362880))));
    cosine = 1 - z / 2 +
             z * z * (1.f / 24 + z * (-1.f / 720 + z * (1.f / 40320 + z * (-1.f / 3628800))));
}

// q mod 4 for a whole number q, without a detour through integers that would overflow.
template <class T>
SDFGAN_HD T quadrant_of(T q) {
    return q - 4 * std::floor(q / 4);
}

// sin and cos of (quadrant * pi/2 + a) from those of a.
template <class T>
SDFGAN_HD void rotate_quadrant(T quadrant, T& sine, T& cosine) {
    const bool swap = (quadrant == 1) | (quadrant == 3);  // no ||: a branch would not vectorise
    const T s = swap ? cosine : sine, c = swap ? sine : cosine;
    sine = quadrant >= 2 ? -s : s;
    cosine = ((quadrant == 1) | (quadrant == 2)) ? -c : c;
}

// sin and cos of x; the reduction in double is good to |x| ~ 1e9.
SDFGAN_HD void sincos_radians(float x, float& sine, float& cosine) {
#ifdef __CUDA_ARCH__
    ::sincosf(x, &sine, &cosine);
#else
    const double turns = x * 0.63661977236758134308;  // 2/pi
    const double q = std::rint(turns);
    sincos_quarter(static_cast<float>((turns - q) * 1.57079632679489661923), sine, cosine);
    rotate_quadrant(static_cast<float>(quadrant_of(q)), sine, cosine);
#endif
}

SDFGAN_HD void sincos_radians(double x, double& sine, double& cosine) {
    sine = std::sin(x);
    cosine = std::cos(x);
}

// sin and cos of pi * x, reduced exactly.
SDFGAN_HD void sincos_pi(float x, float& sine, float& cosine) {
    const float q = std::rint(2 * x);
    sincos_quarter((2 * x - q) * 1.57079632679489661923f, sine, cosine);
    rotate_quadrant(quadrant_of(q), sine, cosine);
}

SDFGAN_HD void sincos_pi(double x, double& sine, double& cosine) {
    const double q = std::rint(2 * x);
    sincos_radians((2 * x - q) * 1.57079632679489661923, sine, cosine);
    rotate_quadrant(quadrant_of(q), sine, cosine);
}

// The pair of one coordinate that is already scaled by 2^octave.
template <bool kTimesPi, class T>
SDFGAN_HD void encode(T scaled, T& sine, T& cosine) {
    if constexpr (kTimesPi) {
        sincos_pi(scaled, sine, cosine);
    } else {
        sincos_radians(scaled, sine, cosine);
    }
}

}  // namespace sdfgan
