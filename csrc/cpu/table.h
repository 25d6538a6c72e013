// The CPU kernels as a table of functions, one table per instruction set; each function works on
// the elements [begin, end).
#pragma once

#include "kernels/launch.h"

#define SDFGAN_JOIN_(a, b) a##b
#define SDFGAN_JOIN(a, b) SDFGAN_JOIN_(a, b)
#define SDFGAN_LEVEL(name) SDFGAN_JOIN(name, SDFGAN_SIMD)  // the name at this instruction set

namespace sdfgan::cpu {

constexpr int kGroup = 16;  // points of one image that go through the network together
constexpr int kTileGroups = 3;
constexpr int kTile = kTileGroups * kGroup;
constexpr int kAdamLine = 16;  // numbers

struct PointGroup {  // at most kGroup points of one image
    int64_t begin, end, image;
};

struct BackwardTile {  // at most kTile points of one image: order[begin] to order[end - 1]
    int64_t begin, end, image;
    int64_t entry;  // of BackwardWork::film: one for each image of each slot
};

// How a FilmSirenBackward is cut, and where its partial sums go: the same for any number of
// threads.
template <class T>
struct BackwardWork {
    const int64_t* order;  // points by image
    const BackwardTile* tiles;
    int64_t tile_count, slots;  // a slot's tiles are added up by one thread
    T* sums;  // [slots, size] gradients of matrices, first as [3, width], heads and constants
    int64_t size;
    T* film;        // [entries, 2, layers, width] gradients of scale and shift
    int64_t lanes;  // set by the kernel: sums of matrices are [layers - 1, inputs / lanes, outputs,
                    // lanes inputs]
};

// Calls begin(context, n) and then body(context) on each of n <= threads threads.
void run_threads(int threads, void* context, void (*begin)(void*, int), void (*body)(void*));

// Makes the template name<T>(parameters, begin, end) the one of this instruction set.
#define SDFGAN_LOOP(name, Parameters)                                                     \
    void SDFGAN_LEVEL(name##_)(const Parameters<float>& p, int64_t begin, int64_t end) {  \
        name(p, begin, end);                                                              \
    }                                                                                     \
    void SDFGAN_LEVEL(name##_)(const Parameters<double>& p, int64_t begin, int64_t end) { \
        name(p, begin, end);                                                              \
    }

template <class T>
struct Kernels {
#define SDFGAN_MEMBER(name, Parameters) \
    void (*name)(const Parameters<T>&, int64_t begin, int64_t end);
    SDFGAN_LOOPS(SDFGAN_MEMBER)
#undef SDFGAN_MEMBER
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
    // The same of layers.
    int64_t (*layers_advance)(const LayerStep<T>&, uint8_t* keep, int64_t begin, int64_t end);
    void (*layers_compact)(const LayerStep<T>&, const uint8_t* keep, int64_t begin, int64_t end,
                           int64_t slot);
    void (*film_siren)(const FilmSirenSample<T>&, const PointGroup*, int64_t count);
    void (*film_siren_backward)(const FilmSirenBackward<T>&, BackwardWork<T>&, int threads);
    void (*film_siren_trace)(const FilmSirenTrace<T>&, int threads);
    void (*perceptron)(const Perceptron<T>&, int threads);
    void (*perceptron_backward)(const PerceptronBackward<T>&, int threads);
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
    void (*mesh_raycast)(const MeshRaycast&, int64_t begin, int64_t end);
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
