// Pixels of photographs on CUDA: a thread per pixel.
#include "core/pixels.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct SamplePixel {
    SamplePixels<T> p;
    __device__ void operator()(int64_t i) const { sample_pixel(p, i); }
};

}  // namespace

template <class T>
void launch(const SamplePixels<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("sample_pixels", p.count, where, SamplePixel<T>{p});
}

SDFGAN_INSTANTIATE_LAUNCH(SamplePixels)

}  // namespace sdfgan::cuda
