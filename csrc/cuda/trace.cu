// The tracing step on CUDA: advance every entry and flag the survivors, select them in order (cub),
// and write their next points. Counts stay on the device, so nothing waits for it.
#include "core/trace.h"

#include <cub/device/device_select.cuh>

#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct Advance {
    TraceStep<T> p;
    uint8_t* keep;
    __device__ void operator()(int64_t entry) const {
        keep[entry] = entry < live_entries(p) && trace_ray(p, entry);
    }
};

template <class T>
struct NextPoint {
    TraceStep<T> p;
    __device__ void operator()(int64_t slot) const {
        if (slot < *p.count_out) {
            next_point(p, slot);
            return;
        }
        p.alive_out[slot] = 0;
        for (int i = 0; i < 3; ++i) p.points[3 * slot + i] = 0;
    }
};

// The workspace: one flag per entry, then cub's storage at the next multiple of 256 bytes.
int64_t flag_bytes(int64_t entries) { return (entries + 255) / 256 * 256; }

cudaError_t select(void* storage, size_t& bytes, const int32_t* in, const uint8_t* keep,
                   int32_t* out, int32_t* count, int64_t entries, cudaStream_t stream) {
    return cub::DeviceSelect::Flagged(storage, bytes, in, keep, out, count, entries, stream);
}

}  // namespace

int64_t trace_step_workspace(int device, int64_t entries) {
    const DeviceGuard guard(device);
    size_t bytes = 0;
    check(select(nullptr, bytes, nullptr, nullptr, nullptr, nullptr, entries, nullptr),
          "trace_step workspace");
    return flag_bytes(entries) + static_cast<int64_t>(bytes);
}

template <class T>
void launch(const TraceStep<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    const auto stream = static_cast<cudaStream_t>(where.stream);
    if (p.entries == 0) {
        check(cudaMemsetAsync(p.count_out, 0, sizeof(int32_t), stream), "trace_step");
        return;
    }
    uint8_t* keep = static_cast<uint8_t*>(p.workspace);
    void* storage = keep + flag_bytes(p.entries);
    size_t bytes = p.workspace_size - flag_bytes(p.entries);
    for_each("trace_step", p.entries, where, Advance<T>{p, keep});
    check(select(storage, bytes, p.alive, keep, p.alive_out, p.count_out, p.entries, stream),
          "trace_step");
    for_each("trace_step", p.entries, where, NextPoint<T>{p});
}

template void launch(const TraceStep<float>&, const Where&);
template void launch(const TraceStep<double>&, const Where&);

}  // namespace sdfgan::cuda
