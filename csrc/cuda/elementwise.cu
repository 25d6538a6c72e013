// CUDA launches of the kernels whose elements are independent: one thread per coordinate or ray.
#include "core/encoding.h"
#include "core/pdf.h"
#include "core/rays.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <bool kTimesPi, class T>
struct EncodeCoordinate {
    PositionalEncoding<T> p;

    __device__ void operator()(int64_t i) const {
        T scaled = p.x[i];
        T* target = p.out + i / p.dims * p.width + i % p.dims;
        if (p.include_input) {
            *target = scaled;
            target += p.dims;
        }
        for (int octave = 0; octave < p.octaves; ++octave) {
            T sine, cosine;
            encode<kTimesPi>(scaled, sine, cosine);
            target[0] = sine;
            target[p.dims] = cosine;
            target += 2 * p.dims;
            scaled *= 2;
        }
    }
};

template <class T>
struct SampleRay {
    SamplePdf<T> p;
    __device__ void operator()(int64_t ray) const { sample_pdf_ray(p, ray); }
};

template <class T>
struct GenerateRay {
    GenerateRays<T> p;
    __device__ void operator()(int64_t ray) const { generate_ray(p, ray); }
};

}  // namespace

template <class T>
void launch(const PositionalEncoding<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    const int64_t coordinates = p.points * p.dims;
    if (p.times_pi) {
        for_each("positional_encoding", coordinates, where, EncodeCoordinate<true, T>{p});
    } else {
        for_each("positional_encoding", coordinates, where, EncodeCoordinate<false, T>{p});
    }
}

template <class T>
void launch(const SamplePdf<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("sample_pdf", p.rays, where, SampleRay<T>{p});
}

template <class T>
void launch(const GenerateRays<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("generate_rays", p.rays, where, GenerateRay<T>{p});
}

template void launch(const PositionalEncoding<float>&, const Where&);
template void launch(const PositionalEncoding<double>&, const Where&);
template void launch(const SamplePdf<float>&, const Where&);
template void launch(const SamplePdf<double>&, const Where&);
template void launch(const GenerateRays<float>&, const Where&);
template void launch(const GenerateRays<double>&, const Where&);

}  // namespace sdfgan::cuda
