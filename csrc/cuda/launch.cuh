// Host side of the CUDA kernels: errors, the device of a launch, and grids of one thread per
// element.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/device.cuh"
#include "kernels/launch.h"

namespace sdfgan::cuda {

inline void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess) {
        cudaGetLastError();  // or the next launch would report it
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
    }
}

// Makes a device current and puts the previous one back. Where it is current already nothing is
// set, since setting a device makes a context on it for a thread without one (which is told that
// device 0 is current), and makes another context of the thread's give way.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&previous_), "cudaGetDevice");
        changed_ = previous_ != device;
        if (changed_) check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(previous_);
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int previous_ = 0;
    bool changed_ = false;
};

template <class Body>
__global__ void for_each_kernel(int64_t n, Body body) {
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
         i += stride) {
        body(i);
    }
}

// body(i) for every i in [0, n), each in a thread of its own.
template <class Body>
void for_each(const char* what, int64_t n, const Where& where, const Body& body) {
    if (n == 0) return;
    constexpr int64_t kThreads = 128, kMaxBlocks = 1 << 20;
    const int64_t blocks = (n + kThreads - 1) / kThreads;
    check(launch_kernel(for_each_kernel<Body>, min_of(blocks, kMaxBlocks), kThreads, 0,
                        where.stream, n, body),
          what);
}

}  // namespace sdfgan::cuda
