// FiLM-SIREN values on tensor cores: fp16 operands, fp32 sums, first layer and sines in fp32.
//
// A warp keeps 16 points through all layers in registers: what a layer puts out is in the layout
// that the next one takes in (the C fragments of m16n8k16 are the A fragments of the next k). The
// weights pass through shared memory in chunks of outputs, the next one coming while one is used.
#include <cuda_fp16.h>

#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kRows = 16;                // points of a warp
constexpr int kPoints = kWarps * kRows;  // of a block

// Outputs whose weights are in shared memory together: fewer sums where activations need the
// registers.
template <int W>
constexpr int kChunk = W == 256 ? 32 : 64;

constexpr int kPad = 8;  // halves after a row, so that ldmatrix has no conflicts

// Of sm_80 and later; see launch() for others.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define SDFGAN_HAS_MMA
#endif

#ifdef SDFGAN_HAS_MMA
__device__ void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ void load_matrices(uint32_t (&b)[4], const __half* row) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(address));
}

__device__ void copy_16_bytes(void* shared, const void* global) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global));
}

__device__ uint32_t pack(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}
#endif

template <int W>
__global__ void __launch_bounds__(kWarps * 32) values_kernel(FilmSirenValues p) {
#ifdef SDFGAN_HAS_MMA
    constexpr int kChunk = cuda::kChunk<W>;
    constexpr int kSteps = W / 16, kChunks = W / kChunk, kPitch = W + kPad;
    extern __shared__ __align__(16) unsigned char bytes[];
    __half* const shared = reinterpret_cast<__half*>(bytes);  // two chunks
    const __half* const hidden = static_cast<const __half*>(p.hidden);
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * kPoints;
    const int64_t live = p.count ? min(static_cast<int64_t>(*p.count), p.entries) : p.entries;
    if (begin >= live) return;

    const int chunk_count = (p.layers - 1) * kChunks;
    const auto fetch = [&](int chunk) {
        if (chunk < chunk_count) {
            const __half* from = hidden + static_cast<int64_t>(chunk) * kChunk * W;
            __half* to = shared + (chunk & 1) * kChunk * kPitch;
            for (int i = threadIdx.x; i < kChunk * W / 8; i += kWarps * 32) {
                const int row = i / (W / 8), column = i % (W / 8) * 8;
                copy_16_bytes(to + row * kPitch + column, from + row * W + column);
            }
        }
        asm volatile("cp.async.commit_group;");
    };
    fetch(0);

    const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4 * 2;
    // This lane's two points; past the end, the last one again.
    int64_t entry[2];
    bool valid[2];
    const float *scale[2], *shift[2];
    float x[2][3];
    for (int r = 0; r < 2; ++r) {
        entry[r] = min(begin + threadIdx.x / 32 * kRows + group + 8 * r, live - 1);
        const int64_t image = p.image[entry[r]];
        valid[r] = image >= 0 && image < p.images;
        const int64_t film = (valid[r] ? image : 0) * p.film_layers * W;
        scale[r] = p.scale + film;
        shift[r] = p.shift + film;
        for (int axis = 0; axis < 3; ++axis) x[r][axis] = p.points[3 * entry[r] + axis];
    }

    uint32_t in[kSteps][4], out[kSteps][4];
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int n = 16 * k + 8 * half + pair;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                float sine[2];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const float* w = p.first + 3 * (n + i);
                    const float sum = w[0] * x[r][0] + w[1] * x[r][1] + w[2] * x[r][2];
                    sine[i] = __sinf(sum * scale[r][n + i] + shift[r][n + i]);
                }
                in[k][2 * half + r] = pack(sine[0], sine[1]);
            }
        }
    }

    float value[2] = {0, 0};
    int chunk = 0;
    for (int layer = 1; layer < p.layers; ++layer) {
        const bool last = layer + 1 == p.layers;
#pragma unroll
        for (int part = 0; part < kChunks; ++part, ++chunk) {
            asm volatile("cp.async.wait_group 0;");
            __syncthreads();  // the chunk is here, and all are done with the one before
            fetch(chunk + 1);
            const __half* weights = shared + (chunk & 1) * kChunk * kPitch;
            float sum[kChunk / 8][4] = {};
#pragma unroll
            for (int k = 0; k < kSteps; k += 2) {
#pragma unroll
                for (int tile = 0; tile < kChunk / 8; ++tile) {
                    uint32_t b[4];  // of two k
                    load_matrices(b,
                                  weights + (8 * tile + lane % 8) * kPitch + 16 * k + lane / 8 * 8);
                    multiply(sum[tile], in[k], b[0], b[1]);
                    multiply(sum[tile], in[k + 1], b[2], b[3]);
                }
            }
#pragma unroll
            for (int tile = 0; tile < kChunk / 8; ++tile) {
                const int n = part * kChunk + 8 * tile + pair;
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const float2 g = *reinterpret_cast<const float2*>(scale[r] + layer * W + n);
                    const float2 c = *reinterpret_cast<const float2*>(shift[r] + layer * W + n);
                    const float a = __sinf(sum[tile][2 * r] * g.x + c.x);
                    const float b = __sinf(sum[tile][2 * r + 1] * g.y + c.y);
                    if (last) {
                        value[r] += a * p.sdf_head[n] + b * p.sdf_head[n + 1];
                    } else {
                        out[(part * kChunk + 8 * tile) / 16][tile % 2 * 2 + r] = pack(a, b);
                    }
                }
            }
        }
        if (!last) {
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
#pragma unroll
                for (int i = 0; i < 4; ++i) in[k][i] = out[k][i];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        value[r] += __shfl_xor_sync(~0u, value[r], 1);
        value[r] += __shfl_xor_sync(~0u, value[r], 2);
        const float square = x[r][0] * x[r][0] + x[r][1] * x[r][1] + x[r][2] * x[r][2];
        const int64_t target = begin + threadIdx.x / 32 * kRows + group + 8 * r;
        if (pair == 0 && target < live) {
            const float sdf = value[r] + sqrtf(square + p.constants[0]) + p.constants[1];
            p.values[target] = valid[r] ? sdf : NAN;
        }
    }
#endif
}

template <int W>
void launch_width(const FilmSirenValues& p, const Where& where) {
    constexpr int kBytes = 2 * kChunk<W> * (W + kPad) * static_cast<int>(sizeof(__half));
    check(
        cudaFuncSetAttribute(values_kernel<W>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "film_siren");
    const unsigned blocks = static_cast<unsigned>((p.entries + kPoints - 1) / kPoints);
    values_kernel<W><<<blocks, kWarps * 32, kBytes, static_cast<cudaStream_t>(where.stream)>>>(p);
    check(cudaGetLastError(), "film_siren");
}

}  // namespace

void launch(const FilmSirenValues& p, const Where& where) {
    const DeviceGuard guard(where.device);
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, where.device),
          "film_siren");
    if (major < 8)
        throw std::runtime_error("film_siren: fp16 needs a GPU of compute capability 8.0");
    if (p.entries == 0 || p.images == 0) return;
    if (p.width == 64) return launch_width<64>(p, where);
    if (p.width == 128) return launch_width<128>(p, where);
    if (p.width == 256) return launch_width<256>(p, where);
    throw std::runtime_error("film_siren: fp16 is for widths 64, 128 and 256");
}

}  // namespace sdfgan::cuda
