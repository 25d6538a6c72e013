// Gaussians of pieces of cones and cylinders, and their expected sines (mip-NeRF, Barron et al.
// 2021, arXiv:2103.13415, eqs. 7, 8 and 14).
#pragma once

#include "core/encoding.h"
#include "core/exponential.h"
#include "kernels/integrated.h"

namespace sdfgan {

// One piece of one ray.
template <class T>
SDFGAN_HD void frustum_gaussian(const FrustumGaussians<T>& p, int64_t i) {
    const int64_t ray = i / p.samples;
    const T near = p.edges[i + ray], far = p.edges[i + ray + 1];  // rays have samples + 1 edges
    const T middle = (near + far) / 2, half = (far - near) / 2, half2 = half * half;
    const T radius2 = p.radii[ray] * p.radii[ray];
    T mean = middle, along = half2 / 3, across = radius2 / 4;
    if (!p.cylinder) {
        const T middle2 = middle * middle, total = 3 * middle2 + half2;
        mean += 2 * middle * half2 / total;
        const T share = half2 / total;
        along -= static_cast<T>(4.0 / 15) * share * share * (12 * middle2 - half2);
        across = radius2 * (middle2 / 4 + static_cast<T>(5.0 / 12) * half2 -
                            static_cast<T>(4.0 / 15) * half2 * share);
    }
    const T* direction = p.directions + 3 * ray;
    for (int k = 0; k < 3; ++k) {
        p.means[3 * i + k] = p.origins[3 * ray + k] + mean * direction[k];
        for (int l = 0; l < 3; ++l) {
            const T covariance =
                (along - across) * direction[k] * direction[l] + (k == l ? across : 0);
            if (p.full) {
                p.covariances[9 * i + 3 * k + l] = covariance;
            } else if (k == l) {
                p.covariances[3 * i + k] = covariance;
            }
        }
    }
}

// One coordinate at one octave: mean times 2^k, variance times 4^k.
template <class T>
SDFGAN_HD void integrated_encode(T mean, T variance, T& sine, T& cosine) {
    encode<false>(mean, sine, cosine);
    const T damping = exp_minus(variance / 2);
    sine *= damping;
    cosine *= damping;
}

}  // namespace sdfgan
