// CUDA launch of core/adam.h: a thread per number.
#include "core/adam.h"

#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct Number {
    LazyAdam<T> p;

    __device__ void operator()(int64_t i) const {
        const T gradient = p.gradient[i];
        if (gradient == 0) return;
        p.gradient[i] = 0;
        if (!adam_skips(p)) {
            adam_number(adam_factors(p), gradient, p.parameter[i], p.mean[i], p.square[i]);
        }
    }
};

}  // namespace

template <class T>
void launch(const LazyAdam<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("lazy_adam", p.count, where, Number<T>{p});
}

SDFGAN_INSTANTIATE_LAUNCH(LazyAdam)

}  // namespace sdfgan::cuda
