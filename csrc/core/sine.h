// sin(x) without branches or tables, so that loops over it become vector code.
#pragma once

#include "core/common.h"

namespace sdfgan {

// V is float or a vector of floats, I the integers of its size. Cody-Waite reduction to
// [-pi/2, pi/2] in three constants, then SLEEF's polynomial (Shibata and Petrogalli 2020). The
// absolute error is below 2e-7 for |x| < 100.
template <class V, class I>
SDFGAN_HD V sine(V x) {
    constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number
    V turns = x * 0.318309886183790671538f + kRound;
    const I sign = (I)turns << 31;  // the bits: whether the number of half turns is odd
    turns -= kRound;
    V r = x - turns * 3.140625f;
    r -= turns * 9.67502593994140625e-4f;
    r -= turns * 1.509957990978376432e-7f;
    const V square = r * r;
    V p = square * 2.6083159809786593541503e-06f - 0.0001981069071916863322258f;
    p = p * square + 0.00833307858556509017944336f;
    p = p * square - 0.166666597127914428710938f;
    return (V)((I)(r + r * square * p) ^ sign);
}

}  // namespace sdfgan
