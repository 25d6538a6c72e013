// sin(x) and cos(x) without branches or tables, so that loops over them become vector code.
#pragma once

#include "core/common.h"

namespace sdfgan {

// V is float or a vector of floats, I the integers of its size.
namespace sine_detail {

constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number
constexpr float kInversePi = 0.318309886183790671538f;

// x - turns * pi with pi in three parts (Cody and Waite 1980)
template <class V>
SDFGAN_HD V reduce(V x, V turns) {
    V r = x - turns * 3.140625f;
    r -= turns * 9.67502593994140625e-4f;
    return r - turns * 1.509957990978376432e-7f;
}

// sin(r) on [-pi/2, pi/2]: SLEEF's polynomial (Shibata and Petrogalli 2020)
template <class V>
SDFGAN_HD V polynomial(V r) {
    const V square = r * r;
    V p = square * 2.6083159809786593541503e-06f - 0.0001981069071916863322258f;
    p = p * square + 0.00833307858556509017944336f;
    p = p * square - 0.166666597127914428710938f;
    return r + r * square * p;
}

// cos(r) on [-pi/2, pi/2] of r^2: the even polynomial of degree 10 of least error (Remez), 5e-9
template <class V>
SDFGAN_HD V cosine_polynomial(V square) {
    V p = square * -2.607710598567792e-07f + 2.4761886379565112e-05f;
    p = p * square - 0.00138884037733078f;
    p = p * square + 0.04166664183139801f;
    p = p * square - 0.5f;
    return p * square + 1.f;
}

}  // namespace sine_detail

// The absolute error is below 2e-7 for |x| < 100.
template <class V, class I>
SDFGAN_HD V sine(V x) {
    using namespace sine_detail;
    V turns = x * kInversePi + kRound;
    const I sign = (I)turns << 31;  // the bits: whether the number of half turns is odd
    turns -= kRound;
    return (V)((I)polynomial(reduce(x, turns)) ^ sign);
}

// As sine: cos((n + 1/2) pi + r) = -(-1)^n sin(r).
template <class V, class I>
SDFGAN_HD V cosine(V x) {
    using namespace sine_detail;
    V turns = (x * kInversePi - 0.5f) + kRound;
    const I sign = ~(I)turns << 31;
    turns = (turns - kRound) + 0.5f;
    return (V)((I)polynomial(reduce(x, turns)) ^ sign);
}

// Both, from one range reduction; as exact.
template <class V, class I>
SDFGAN_HD void sine_and_cosine(V x, V& s, V& c) {
    using namespace sine_detail;
    V turns = x * kInversePi + kRound;
    const I sign = (I)turns << 31;
    turns -= kRound;
    const V r = reduce(x, turns);
    s = (V)((I)polynomial(r) ^ sign);
    c = (V)((I)cosine_polynomial(r * r) ^ sign);
}

// sine() and cosine() of one number.
SDFGAN_HD float sine(float x) {
    using namespace sine_detail;
    const float turns = (x * kInversePi + kRound) - kRound;
    const float value = polynomial(reduce(x, turns));
    return static_cast<int32_t>(turns) & 1 ? -value : value;
}

SDFGAN_HD float cosine(float x) {
    using namespace sine_detail;
    const float turns = (x * kInversePi - 0.5f) + kRound - kRound;
    const float value = polynomial(reduce(x, turns + 0.5f));
    return static_cast<int32_t>(turns) & 1 ? value : -value;
}

// Two thirds of the work of sine(); the absolute error is below 2e-6 for |x| < 60: for results that
// are rounded to bfloat16.
template <class V, class I>
SDFGAN_HD V short_sine(V x) {
    using namespace sine_detail;
    V turns = x * kInversePi + kRound;
    const I sign = (I)turns << 31;
    turns -= kRound;
    V r = x - turns * 3.140625f;
    r -= turns * 9.676535897932e-4f;
    const V square = r * r;
    // The odd polynomial of degree 7 of least error on [-pi/2, pi/2] (Remez).
    V p = square * -1.8492180426225076e-4f + 8.31236616422978e-3f;
    p = p * square - 0.16665681068413296f;
    return (V)((I)(r + r * square * p) ^ sign);
}

}  // namespace sdfgan
