// The march on CUDA: start or advance every ray and flag those that go on, select them in order
// (cub), and write their next points. Counts stay on the device, so nothing waits for it.
#include "core/trace.h"

#include <thrust/iterator/counting_iterator.h>

#include <cub/device/device_select.cuh>

#include "cuda/launch.cuh"

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

// Past the count: the last ray again, at the origin.
template <class T>
__device__ void fill(int64_t slot, int32_t count, int32_t* alive, T* points) {
    alive[slot] = count > 0 ? alive[count - 1] : 0;
    for (int i = 0; i < 3; ++i) points[3 * slot + i] = 0;
}

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

// The workspace: one flag per entry, then cub's storage at the next multiple of 256 bytes.
int64_t flag_bytes(int64_t entries) { return (entries + 255) / 256 * 256; }

template <class In>
int64_t workspace(int device, int64_t entries, In in) {
    const DeviceGuard guard(device);
    size_t bytes = 0;
    check(cub::DeviceSelect::Flagged(nullptr, bytes, in, static_cast<const uint8_t*>(nullptr),
                                     static_cast<int32_t*>(nullptr), static_cast<int32_t*>(nullptr),
                                     entries),
          "workspace");
    return flag_bytes(entries) + static_cast<int64_t>(bytes);
}

// Marks with Mark, selects from `in`, and writes points with Write.
template <class Mark, class Write, class T, class In>
void compact(const char* what, const T& p, const Where& where, int64_t entries, In in, int32_t* out,
             int32_t* count) {
    const DeviceGuard guard(where.device);
    const auto stream = static_cast<cudaStream_t>(where.stream);
    if (entries == 0) {
        check(cudaMemsetAsync(count, 0, sizeof(int32_t), stream), what);
        return;
    }
    uint8_t* keep = static_cast<uint8_t*>(p.workspace);
    void* storage = keep + flag_bytes(entries);
    size_t bytes = p.workspace_size - flag_bytes(entries);
    for_each(what, entries, where, Mark{p, keep});
    check(cub::DeviceSelect::Flagged(storage, bytes, in, static_cast<const uint8_t*>(keep), out,
                                     count, entries, stream),
          what);
    for_each(what, entries, where, Write{p});
}

using Counter = thrust::counting_iterator<int32_t>;

}  // namespace

int64_t start_level_workspace(int device, int64_t rays) {
    return workspace(device, rays, Counter(0));
}

int64_t trace_step_workspace(int device, int64_t entries) {
    return workspace(device, entries, static_cast<const int32_t*>(nullptr));
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
