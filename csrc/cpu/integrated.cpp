// The loops of core/integrated.h and core/harmonics.h.
#include "core/integrated.h"
#include "core/harmonics.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
void frustum_gaussians(const FrustumGaussians<T>& p, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) frustum_gaussian(p, i);
}

// Coordinates go through in tiles, as in positional_encoding.
template <class T>
void integrated_positional_encoding(const IntegratedPositionalEncoding<T>& p, int64_t begin,
                                    int64_t end) {
    constexpr int64_t kTile = 64;
    T mean[kTile], variance[kTile], sine[kTile], cosine[kTile];
    T* target[kTile];
    for (int64_t start = begin * p.dims; start < end * p.dims; start += kTile) {
        const int64_t n = min_of(kTile, end * p.dims - start);
        for (int64_t i = 0; i < n; ++i) {
            mean[i] = p.means[start + i];
            variance[i] = p.variances[start + i];
            target[i] =
                p.out + (start + i) / p.dims * 2 * p.octaves * p.dims + (start + i) % p.dims;
        }
        for (int octave = 0; octave < p.octaves; ++octave) {
            for (int64_t i = 0; i < n; ++i) {
                integrated_encode(mean[i], variance[i], sine[i], cosine[i]);
            }
            for (int64_t i = 0; i < n; ++i) {
                target[i][0] = sine[i];
                target[i][p.dims] = cosine[i];
                target[i] += 2 * p.dims;
                mean[i] *= 2;
                variance[i] *= 4;
            }
        }
    }
}

template <class T>
void integrated_directional_encoding(const IntegratedDirectionalEncoding<T>& p, int64_t begin,
                                     int64_t end) {
    constexpr int kLanes = 16;
    for (int64_t first = begin; first < end; first += kLanes) {
        const int count = static_cast<int>(min_of<int64_t>(kLanes, end - first));
        p.grad_out ? harmonics<true, kLanes>(p, first, count)
                   : harmonics<false, kLanes>(p, first, count);
    }
}

}  // namespace

SDFGAN_LOOP(frustum_gaussians, FrustumGaussians)
SDFGAN_LOOP(integrated_directional_encoding, IntegratedDirectionalEncoding)
SDFGAN_LOOP(integrated_positional_encoding, IntegratedPositionalEncoding)

}  // namespace sdfgan::cpu
