// Rays through a grid of cells (core/grid_march.h), each by a warp that looks at 32 steps at a
// time: a thread alone would wait for one cell after the other.
#include "core/grid_march.h"
#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace sdfgan::cuda {
namespace {

// What a warp sees from step `first` on: lane i's bit is that of step first + i.
struct Steps {
    unsigned found, ended;
};

template <class T>
__device__ __forceinline__ Steps look(GridWalk<T>& walk, int32_t first, int lane) {
    const bool ended = walk.ended(first + lane);
    const bool found = !ended && walk.find(first + lane);
    return {__ballot_sync(kAllLanes, found), __ballot_sync(kAllLanes, ended)};
}

// The place of the n-th bit that is set, n >= 1.
__device__ __forceinline__ int place_of_bit(unsigned bits, int64_t n) {
    for (; n > 1; --n) bits &= bits - 1;
    return __ffs(static_cast<int>(bits)) - 1;
}

template <class T>
__global__ void march_count_kernel(MarchCount<T> p) {
    for_rays<kWarp>(p.march.rays, [&](int64_t ray, int lane) {
        GridWalk<T> walk(p.march, ray);
        int32_t next = walk.step;
        int64_t count = 0;
        for (bool ended = false; count < p.most && !ended;) {
            const Steps steps = look(walk, next, lane);
            const int found = __popc(steps.found);
            ended = steps.ended != 0;
            if (count + found >= p.most) {
                next += place_of_bit(steps.found, p.most - count) + 1;
                count = p.most;
            } else {
                next += ended ? place_of_bit(steps.ended, 1) : kWarp;
                count += found;
            }
        }
        if (lane != 0) return;
        if (ray == 0) p.counts[0] = 0;
        p.counts[ray + 1] = count;
        p.next[ray] = next;
    });
}

template <class T>
__global__ void march_samples_kernel(MarchSamples<T> p) {
    for_rays<kWarp>(p.march.rays, [&](int64_t ray, int lane) {
        GridWalk<T> walk(p.march, ray);
        int64_t begin, end;
        range_of_ray(p.at, ray, begin, end);
        int32_t next = walk.step;
        for (bool ended = false; begin < end && !ended; next += kWarp) {
            const Steps steps = look(walk, next, lane);
            const int64_t i = begin + __popc(steps.found & ((1u << lane) - 1));
            if ((steps.found >> lane & 1) && i < end) write_march_sample(p, ray, i, true, walk);
            begin += __popc(steps.found);
            ended = steps.ended != 0;
        }
        for (int64_t i = begin + lane; i < end; i += kWarp) {
            write_march_sample(p, ray, i, false, walk);
        }
    });
}

template <class T>
struct ReachSteps {
    MarchReached<T> p;
    __device__ void operator()(int64_t i) const { march_reached_ray(p, i); }
};

// A launch of one of the two kernels.
template <class Parameters>
void for_each_ray(const char* what, void (*kernel)(Parameters), const Parameters& p,
                  const Where& where) {
    const DeviceGuard guard(where.device);
    if (p.march.rays == 0) return;
    constexpr int kThreads = 128;
    check(launch_kernel(kernel, blocks_of_rays<kWarp>(p.march.rays, kThreads), kThreads, 0,
                        where.stream, p),
          what);
}

}  // namespace

template <class T>
void launch(const MarchCount<T>& p, const Where& where) {
    for_each_ray("march_count", march_count_kernel<T>, p, where);
}

template <class T>
void launch(const MarchSamples<T>& p, const Where& where) {
    for_each_ray("march_samples", march_samples_kernel<T>, p, where);
}

template <class T>
void launch(const MarchReached<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("march_reached", p.at.rays, where, ReachSteps<T>{p});
}

SDFGAN_INSTANTIATE_LAUNCH(MarchCount)
SDFGAN_INSTANTIATE_LAUNCH(MarchReached)
SDFGAN_INSTANTIATE_LAUNCH(MarchSamples)

}  // namespace sdfgan::cuda
