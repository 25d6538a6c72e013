// In place of csrc/cuda/device.cuh; what the instructions do is written down from NVIDIA's PTX ISA
// (cp.async; "Matrix Fragments for mma.m16n8k16 with floating point type"), not from that file.
#pragma once

#include <cuda_runtime.h>

namespace sdfgan::cuda {

template <class... Parameters>
cudaError_t allow_shared_memory(void (*)(Parameters...), int) {
    return cudaSuccess;
}

template <class... Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters...), int64_t blocks, int threads,
                          int shared_bytes, void*, const Parameters&... parameters) {
    emulated::Launch(blocks, threads, shared_bytes, [&] { kernel(parameters...); }).run();
    return cudaSuccess;
}

inline unsigned char* shared_memory() { return emulated::self().block->shared; }

// The bytes are nonsense until they have been waited for.
inline void copy_16_bytes(void* shared, const void* global) {
    const emulated::Block& block = *emulated::self().block;
    const auto offset = static_cast<unsigned char*>(shared) - block.shared;
    if (offset < 0 || offset + 16 > block.bytes || offset % 16)
        emulated::fail("a copy goes astray");
    std::memset(shared, 0xff, 16);
    emulated::self().copies.push_back({shared, global});
}

inline void commit_copies() {
    emulated::Thread& thread = emulated::self();
    thread.groups.push_back(std::move(thread.copies));
    thread.copies.clear();
}

template <int kPending>
void wait_for_copies() {
    auto& groups = emulated::self().groups;
    while (static_cast<int>(groups.size()) > kPending) {
        for (const emulated::Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
        groups.pop_front();
    }
}

template <class T>
T read_only(const T* source) {
    return *source;
}

// At once where the hardware can: then both lie in 8, or all in 16, aligned bytes.
inline void add_2(float* target, float a, float b) {
    if (reinterpret_cast<uintptr_t>(target) % 8) emulated::fail("two that are not aligned");
    atomicAdd(target, a);
    atomicAdd(target + 1, b);
}

inline void add_4(float* target, float a, float b, float c, float d) {
    if (reinterpret_cast<uintptr_t>(target) % 16) emulated::fail("four that are not aligned");
    add_2(target, a, b);
    add_2(target + 2, c, d);
}

inline emulated::Barrier* in_shared_memory(uint64_t* barrier) {
    return reinterpret_cast<emulated::Barrier*>(barrier);
}

inline void start_barrier(uint64_t* barrier, int arrivals) {
    const auto count = static_cast<uint16_t>(arrivals);
    *in_shared_memory(barrier) = {count, count, emulated::kStarted, 0};
}

inline void publish_barriers() {}

inline void arrive(uint64_t* barrier) {
    emulated::Launch::current->arrive(in_shared_memory(barrier));
}

inline void wait(uint64_t* barrier, unsigned parity) {
    emulated::Launch::current->wait(in_shared_memory(barrier), parity);
}

constexpr int kCopyArrivals = 1;

template <int kBytes>
void copy_by_warp(void* shared, const void* global, uint64_t* barrier) {
    emulated::from_all_lanes("copy_by_warp", 0);
    if (threadIdx.x % emulated::kLanes != 0) return;
    emulated::Block* const block = emulated::self().block;
    const auto offset = static_cast<unsigned char*>(shared) - block->shared;
    if (offset < 0 || offset + kBytes > block->bytes || offset % 16) {
        emulated::fail("a copy goes astray");
    }
    emulated::Launch::current->begin({{shared, global}, kBytes, in_shared_memory(barrier), block});
}

// To the nearest fp16 number, ties to even.
inline uint16_t to_half(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    const double size = std::fabs(static_cast<double>(value));
    if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00);
    if (size >= 65520) return static_cast<uint16_t>(sign | 0x7c00);
    const int exponent = std::max(size > 0 ? std::ilogb(size) : -14, -14);
    const double steps = std::nearbyint(std::ldexp(size, 10 - exponent));  // of 2^(exponent - 10)
    return static_cast<uint16_t>(sign + ((exponent + 14) << 10) + static_cast<int>(steps));
}

inline float half_value(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                 : exponent     ? std::ldexp(1024.f + fraction, exponent - 25)
                                : std::ldexp(1.f * fraction, -24);
    return half & 0x8000 ? -size : size;
}

inline float from_half(uint16_t half) {
    static const std::vector<float> all = [] {
        std::vector<float> values(1 << 16);
        for (int i = 0; i < 1 << 16; ++i) values[i] = half_value(static_cast<uint16_t>(i));
        return values;
    }();
    return all[half];
}

inline uint32_t pack_halves(float low, float high) {
    return to_half(low) | static_cast<uint32_t>(to_half(high)) << 16;
}

inline void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Operands {
        float a[4][2], b[2][2];
    } mine;
    for (int which = 0; which < 2; ++which) {
        const auto half = [which](uint32_t word) {
            return from_half(static_cast<uint16_t>(word >> 16 * which));
        };
        for (int i = 0; i < 4; ++i) mine.a[i][which] = half(a[i]);
        mine.b[0][which] = half(b0), mine.b[1][which] = half(b1);
    }
    const auto all = emulated::from_all_lanes("mma", mine);
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
        float total = sum[i];
        for (int k = 0; k < 16; ++k) {
            // a: groupID = lane / 4 holds its row, threadID_in_group = (k % 8) / 2;
            // registers: a0 row < 8, k < 8; a1 row >= 8; a2 k >= 8; a3 both.
            const auto& of_a = all[row % 8 * 4 + k % 8 / 2].a;
            const auto& of_b = all[column * 4 + k % 8 / 2].b;
            total += of_a[(row >= 8) + 2 * (k >= 8)][k % 2] * of_b[k >= 8][k % 2];
        }
        sum[i] = total;
    }
}

}  // namespace sdfgan::cuda
