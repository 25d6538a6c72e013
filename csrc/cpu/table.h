// The CPU kernels as a table of functions, one table per instruction set; each function works on
// the elements [begin, end).
#pragma once

#include "kernels.h"

#define SDFGAN_JOIN_(a, b) a##b
#define SDFGAN_JOIN(a, b) SDFGAN_JOIN_(a, b)
#define SDFGAN_LEVEL(name) SDFGAN_JOIN(name, SDFGAN_SIMD)  // the name at this instruction set

namespace sdfgan::cpu {

constexpr int kGroup = 16;  // points of one image that go through the network together
constexpr int kTileGroups = 3;
constexpr int kTile = kTileGroups * kGroup;

struct PointGroup {  // at most kGroup points of one image
    int64_t begin, end, image;
};

// Calls begin(context, n) and then body(context) on each of n <= threads threads.
void run_threads(int threads, void* context, void (*begin)(void*, int), void (*body)(void*));

template <class T>
struct VolumeKernels;  // volume.h

template <class T>
struct Kernels {
    void (*positional_encoding)(const PositionalEncoding<T>&, int64_t begin, int64_t end);
    void (*sample_pdf)(const SamplePdf<T>&, int64_t begin, int64_t end);
    void (*generate_rays)(const GenerateRays<T>&, int64_t begin, int64_t end);
    // Makes rays and returns how many march; those are marked in `keep`.
    int64_t (*level_start)(const StartLevel<T>&, uint8_t* keep, int64_t begin, int64_t end);
    // Writes those of them that march to alive and points from `slot` on.
    void (*level_compact)(const StartLevel<T>&, const uint8_t* keep, int64_t begin, int64_t end,
                          int64_t slot);
    // Advances the rays of the entries and returns how many go on; survivors are marked in `keep`.
    int64_t (*trace_advance)(const TraceStep<T>&, uint8_t* keep, int64_t begin, int64_t end);
    // Writes the survivors among the entries to alive_out and points from `slot` on.
    void (*trace_compact)(const TraceStep<T>&, const uint8_t* keep, int64_t begin, int64_t end,
                          int64_t slot);
    void (*film_siren)(const FilmSirenSample<T>&, const PointGroup*, int64_t count);
    void (*film_siren_trace)(const FilmSirenTrace<T>&, int threads);
    void (*hash_encoding)(const HashEncoding<T>&, int64_t begin, int64_t end);
    void (*hash_points_gradient)(const HashPointsGradient<T>&, int64_t begin, int64_t end);
    // Works on the levels [begin, end), so that no two threads write to one entry.
    void (*hash_table_gradient)(const HashTableGradient<T>&, int64_t begin, int64_t end);
    const VolumeKernels<T>* volume;
    void (*perceptron)(const Perceptron<T>&, int64_t begin, int64_t end);
};

constexpr int64_t kMeshPiece = 512;

struct Table {
    const char* name;
    bool bf16;  // multiplies bfloat16 in hardware
    Kernels<float> f32;
    Kernels<double> f64;
    double (*multiply_adds)(int64_t rounds, bool bf16);  // returns the operations done
    // The points order[begin] to order[end - 1], kMeshPiece at most.
    void (*mesh_distance)(const MeshDistance&, const int32_t* order, int64_t begin, int64_t end);
};

extern const Table table_base, table_avx2, table_avx512, table_avx512bf16;

const Table& table();  // the one in use

template <class T>
const Kernels<T>& kernels() {
    if constexpr (sizeof(T) == sizeof(float)) {
        return table().f32;
    } else {
        return table().f64;
    }
}

}  // namespace sdfgan::cpu
