// Encodings of cones and of lobes on CUDA: a thread per piece, coordinate or direction.
#include "core/harmonics.h"
#include "core/integrated.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct EncodeGaussian {
    IntegratedPositionalEncoding<T> p;

    __device__ void operator()(int64_t i) const {
        T mean = p.means[i], variance = p.variances[i];
        T* target = p.out + i / p.dims * 2 * p.octaves * p.dims + i % p.dims;
        for (int octave = 0; octave < p.octaves; ++octave) {
            T sine, cosine;
            integrated_encode(mean, variance, sine, cosine);
            target[0] = sine;
            target[p.dims] = cosine;
            target += 2 * p.dims;
            mean *= 2;
            variance *= 4;
        }
    }
};

template <class T>
struct FrustumPiece {
    FrustumGaussians<T> p;
    __device__ void operator()(int64_t i) const { frustum_gaussian(p, i); }
};

template <bool kBackward, class T>
struct EncodeLobe {
    IntegratedDirectionalEncoding<T> p;
    __device__ void operator()(int64_t i) const { harmonics<kBackward, 1>(p, i, 1); }
};

}  // namespace

template <class T>
void launch(const FrustumGaussians<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("frustum_gaussians", p.rays * p.samples, where, FrustumPiece<T>{p});
}

template <class T>
void launch(const IntegratedPositionalEncoding<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("integrated_positional_encoding", p.points * p.dims, where, EncodeGaussian<T>{p});
}

template <class T>
void launch(const IntegratedDirectionalEncoding<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    if (p.grad_out) {
        for_each("integrated_directional_encoding", p.count, where, EncodeLobe<true, T>{p});
    } else {
        for_each("integrated_directional_encoding", p.count, where, EncodeLobe<false, T>{p});
    }
}

SDFGAN_INSTANTIATE_LAUNCH(FrustumGaussians)
SDFGAN_INSTANTIATE_LAUNCH(IntegratedDirectionalEncoding)
SDFGAN_INSTANTIATE_LAUNCH(IntegratedPositionalEncoding)

}  // namespace sdfgan::cuda
