// Positional encoding on CUDA: a thread per coordinate.
#include "core/encoding.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <bool kTimesPi, class T>
__device__ __forceinline__ void encode_coordinate(const PositionalEncoding<T>& p, T scaled,
                                                  T* target) {
    if (p.include_input) {
        *target = scaled;
        target += p.dims;
    }
    for (int octave = 0; octave < p.octaves; ++octave) {
        T sine, cosine;
        encode<kTimesPi>(scaled, sine, cosine);
        target[0] = sine;
        target[p.dims] = cosine;
        target += 2 * p.dims;
        scaled *= 2;
    }
}

template <bool kTimesPi, class T>
struct EncodeCoordinate {
    PositionalEncoding<T> p;
    __device__ void operator()(int64_t i) const {
        encode_coordinate<kTimesPi>(p, p.x[i], p.out + i / p.dims * p.width + i % p.dims);
    }
};

constexpr int kEncodeThreads = 128;

// `tile` points at a time, a multiple of 4: a thread has a coordinate and writes far apart, so rows
// are made in shared memory and leave it in one piece.
template <bool kTimesPi, class T>
__global__ void __launch_bounds__(kEncodeThreads)
    encode_points_kernel(PositionalEncoding<T> p, int tile) {
    T* const rows = reinterpret_cast<T*>(shared_memory());
    const int dims = static_cast<int>(p.dims), width = static_cast<int>(p.width);
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * tile; first < p.points;
         first += static_cast<int64_t>(gridDim.x) * tile) {
        const int points = static_cast<int>(min_of<int64_t>(tile, p.points - first));
        for (int i = threadIdx.x; i < points * dims; i += kEncodeThreads) {
            const int point = i / dims;
            encode_coordinate<kTimesPi>(p, p.x[first * dims + i],
                                        rows + point * width + (i - point * dims));
        }
        __syncthreads();
        T* const target = p.out + first * width;
        int copied = 0;
        if constexpr (sizeof(T) == sizeof(float)) {
            copied = points * width / 4 * 4;
            for (int i = threadIdx.x; i < copied / 4; i += kEncodeThreads) {
                reinterpret_cast<float4*>(target)[i] = reinterpret_cast<const float4*>(rows)[i];
            }
        }
        for (int i = copied + threadIdx.x; i < points * width; i += kEncodeThreads) {
            target[i] = rows[i];
        }
        __syncthreads();
    }
}

template <bool kTimesPi, class T>
void encode_points(const PositionalEncoding<T>& p, const Where& where) {
    if (p.points * p.width == 0) return;
    constexpr int64_t kBytes = 24 << 10, kMaxBlocks = 1 << 20;
    const int64_t row = p.width * static_cast<int64_t>(sizeof(T));
    const int64_t tile = min_of(kEncodeThreads / p.dims, kBytes / row) / 4 * 4;
    if (tile == 0 || reinterpret_cast<uintptr_t>(p.out) % 16) {
        for_each("positional_encoding", p.points * p.dims, where, EncodeCoordinate<kTimesPi, T>{p});
        return;
    }
    const int64_t blocks = min_of((p.points + tile - 1) / tile, kMaxBlocks);
    check(launch_kernel(encode_points_kernel<kTimesPi, T>, blocks, kEncodeThreads,
                        static_cast<int>(tile * row), where.stream, p, static_cast<int>(tile)),
          "positional_encoding");
}

}  // namespace

template <class T>
void launch(const PositionalEncoding<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    p.times_pi ? encode_points<true>(p, where) : encode_points<false>(p, where);
}

SDFGAN_INSTANTIATE_LAUNCH(PositionalEncoding)

}  // namespace sdfgan::cuda
