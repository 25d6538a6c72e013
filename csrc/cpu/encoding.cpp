// The loop of core/encoding.h.
#include "core/encoding.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

// Coordinates go through in tiles: scaling and sines vectorise, scattering to the rows follows.
template <bool kTimesPi, class T>
void encode_points(const PositionalEncoding<T>& p, int64_t begin, int64_t end) {
    constexpr int64_t kTile = 64;
    T scaled[kTile], sine[kTile], cosine[kTile];
    T* target[kTile];
    for (int64_t start = begin * p.dims; start < end * p.dims; start += kTile) {
        const int64_t n = min_of(kTile, end * p.dims - start);
        for (int64_t i = 0; i < n; ++i) {
            const int64_t point = (start + i) / p.dims, dim = (start + i) % p.dims;
            scaled[i] = p.x[start + i];
            target[i] = p.out + point * p.width + dim;
            if (p.include_input) {
                *target[i] = scaled[i];
                target[i] += p.dims;
            }
        }
        for (int octave = 0; octave < p.octaves; ++octave) {
            for (int64_t i = 0; i < n; ++i) {
                encode<kTimesPi>(scaled[i], sine[i], cosine[i]);
            }
            for (int64_t i = 0; i < n; ++i) {
                target[i][0] = sine[i];
                target[i][p.dims] = cosine[i];
                target[i] += 2 * p.dims;
                scaled[i] *= 2;
            }
        }
    }
}

template <class T>
void positional_encoding(const PositionalEncoding<T>& p, int64_t begin, int64_t end) {
    p.times_pi ? encode_points<true>(p, begin, end) : encode_points<false>(p, begin, end);
}

}  // namespace

SDFGAN_LOOP(positional_encoding, PositionalEncoding)

}  // namespace sdfgan::cpu
