// The layers of rays: core/layers.h has the maths of one.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

constexpr int kLayerNumbers = 24;

// One evaluation of the layers that are sought, and their stable compaction; see core/layers.h.
// Entry k < count is layer alive[k]. Entries outside [0, layers) and layers that have been found
// are dropped. Each layer occurs at most once.
template <class T>
struct LayerStep {
    const T* values;       // [entries] of the sdf
    const T* gradients;    // [entries, 3]
    const int32_t* alive;  // [entries]
    const int32_t* count;  // [1], on the device
    const T* origins;      // [layers, 3] of their rays
    const T* directions;   // [layers, 3]
    T* state;              // [layers, kLayerNumbers] updated: LayerSearch
    uint8_t* stage;        // [layers] updated: LayerStage
    T* points;             // [entries, 3] next points of the survivors, then zeros
    int32_t* alive_out;    // [entries] survivors in their order, then the last one again
    int32_t* count_out;    // [1]
    void* workspace;       // trace_step_workspace(entries) bytes; CUDA only
    int64_t workspace_size;
    int64_t entries;
    int64_t layers;

    SDFGAN_FIELDS(values, gradients, alive, count, origins, directions, state, stage, points,
                  alive_out, count_out, workspace, workspace_size, entries, layers)
};

}  // namespace sdfgan
