// The march on CUDA: start or advance every ray, and keep those that go on.
#include "core/trace.h"

#include <thrust/iterator/counting_iterator.h>

#include "cuda/compact.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct Start {
    StartLevel<T> p;
    uint8_t* keep;
    __device__ void operator()(int64_t ray) const { keep[ray] = start_ray(p, ray); }
};

template <class T>
struct Advance {
    TraceStep<T> p;
    uint8_t* keep;
    __device__ void operator()(int64_t entry) const {
        keep[entry] = entry < live_entries(p) && trace_ray(p, entry);
    }
};

template <class T>
struct FirstPoint {
    StartLevel<T> p;
    __device__ void operator()(int64_t slot) const {
        slot < *p.count ? first_point(p, slot) : fill(slot, *p.count, p.alive, p.points);
    }
};

template <class T>
struct NextPoint {
    TraceStep<T> p;
    __device__ void operator()(int64_t slot) const {
        slot < *p.count_out ? next_point(p, slot) : fill(slot, *p.count_out, p.alive_out, p.points);
    }
};

using Counter = thrust::counting_iterator<int32_t>;

}  // namespace

int64_t start_level_workspace(int device, int64_t rays) {
    return select_workspace(device, rays, Counter(0));
}

int64_t trace_step_workspace(int device, int64_t entries) {
    return select_workspace(device, entries, static_cast<const int32_t*>(nullptr));
}

template <class T>
void launch(const StartLevel<T>& p, const Where& where) {
    compact<Start<T>, FirstPoint<T>>("start_level", p, where, p.images * p.size * p.size,
                                     Counter(0), p.alive, p.count);
}

template <class T>
void launch(const TraceStep<T>& p, const Where& where) {
    compact<Advance<T>, NextPoint<T>>("trace_step", p, where, p.entries, p.alive, p.alive_out,
                                      p.count_out);
}

SDFGAN_INSTANTIATE_LAUNCH(StartLevel)
SDFGAN_INSTANTIATE_LAUNCH(TraceStep)

}  // namespace sdfgan::cuda
