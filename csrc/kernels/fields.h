// A kernel's parameters are one struct, which names its members once more with SDFGAN_FIELDS: from
// these names the binding to Python (bindings.cpp) follows. No torch and no CUDA in kernels/.
// Arrays are dense and row-major, on the device of the launch; sizes may be zero. T is float or
// double.
#pragma once

#include <cstdint>

#define SDFGAN_FIELDS(...)                \
    template <class Visit>                \
    void fields(Visit&& visit) {          \
        visit(#__VA_ARGS__, __VA_ARGS__); \
    }

namespace sdfgan {

// A short array that is read by the host, also for a launch on CUDA.
template <class T>
struct HostArray {
    const T* data;
    int64_t size;

    const T& operator[](int64_t i) const { return data[i]; }
    const T* begin() const { return data; }
    const T* end() const { return data + size; }
};

}  // namespace sdfgan
