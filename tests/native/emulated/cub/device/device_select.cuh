// In place of cub's: stable selection by flags.
#pragma once

#include <cuda_runtime.h>

namespace cub {

struct DeviceSelect {
    template <class In>
    static cudaError_t Flagged(void* storage, size_t& bytes, In in, const uint8_t* flags,
                               int32_t* out, int32_t* count, int64_t items,
                               cudaStream_t = nullptr) {
        if (!storage) {
            bytes = 256;
            return cudaSuccess;
        }
        int32_t selected = 0;
        for (int64_t i = 0; i < items; ++i) {
            if (flags[i]) out[selected++] = in[i];
        }
        *count = selected;
        return cudaSuccess;
    }
};

}  // namespace cub
