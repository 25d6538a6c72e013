// Stable compaction: flag what goes on, select it in order (cub), and write its next points. Counts
// stay on the device, so nothing waits for it.
#pragma once

#include <cub/device/device_select.cuh>

#include "cuda/launch.cuh"

namespace sdfgan::cuda {

// Past the count: the last ray again, at the origin.
template <class T>
__device__ void fill(int64_t slot, int32_t count, int32_t* alive, T* points) {
    alive[slot] = count > 0 ? alive[count - 1] : 0;
    for (int i = 0; i < 3; ++i) points[3 * slot + i] = 0;
}

// The workspace: one flag per entry, then cub's storage at the next multiple of 256 bytes.
inline int64_t flag_bytes(int64_t entries) { return (entries + 255) / 256 * 256; }

template <class In>
int64_t select_workspace(int device, int64_t entries, In in) {
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

}  // namespace sdfgan::cuda
