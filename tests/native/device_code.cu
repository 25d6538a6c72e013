// Everything in csrc/cuda/device.cuh that differs between architectures, in one small kernel:
// test_native.py compiles it for all of them, which takes seconds; all of csrc/cuda takes minutes.
#include "cuda/device.cuh"

using namespace sdfgan::cuda;

__global__ void everything(uint64_t* barriers, const void* source, float* sums) {
    if (threadIdx.x == 0) start_barrier(barriers, kCopyArrivals);
    publish_barriers();
    __syncthreads();
    unsigned char* const shared = shared_memory();
    copy_by_warp<512>(shared, source, barriers);
    wait(barriers, 0);
    copy_16_bytes(shared, source);
    commit_copies();
    wait_for_copies<0>();
    arrive(barriers);
    float sum[4] = {};
    const uint32_t a[4] = {shared[0], shared[1], shared[2], shared[3]};
    multiply(sum, a, shared[4], shared[5]);
    add_2(sums, sum[0], sum[1]);
    add_4(sums, sum[0], sum[1], sum[2], sum[3]);
}
