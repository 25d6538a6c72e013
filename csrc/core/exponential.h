// exp(-x) and 1 - exp(-x) for x >= 0, without branches, so that loops over them vectorise.
#pragma once

#include <cstring>

#include "core/common.h"

namespace sdfgan {

// exp(-x) = scale (1 + rest), scale a power of two; rest by its Taylor series on |r| <= ln(2)/2,
// the first term left out is below 6e-9. 0 from x = 88 on.
SDFGAN_HD void split_exp(float x, float& scale, float& rest) {
    const float a = min_of(x, 88.f);
    const float n = std::rint(a * 1.44269504f);
    const float r = (n * 0.693359375f - a) - n * 2.12194440e-4f;  // ln 2 in two parts
    rest =
        r *
        (1 + r * (1.f / 2 +
                  r * (1.f / 6 + r * (1.f / 24 + r * (1.f / 120 + r * (1.f / 720 + r / 5040))))));
    const float whole = n == n ? n : 0.f;  // not a number stays one by `rest`
    const int32_t bits = (127 - static_cast<int32_t>(whole)) << 23;
    memcpy(&scale, &bits, sizeof scale);
}

SDFGAN_HD float exp_minus(float x) {
    float scale, rest;
    split_exp(x, scale, rest);
    return scale + scale * rest;
}

SDFGAN_HD float one_minus_exp(float x) {
    float scale, rest;
    split_exp(x, scale, rest);
    return (1 - scale) - scale * rest;
}

SDFGAN_HD double exp_minus(double x) { return std::exp(-x); }
SDFGAN_HD double one_minus_exp(double x) { return -std::expm1(-x); }

}  // namespace sdfgan
