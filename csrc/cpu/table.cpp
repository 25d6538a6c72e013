// The table of one instruction set, SDFGAN_SIMD: this file and those that it takes the kernels from
// are compiled once for each. Nothing but the table leaves them: see SDFGAN_HD for why.
#include "cpu/table.h"

#define SDFGAN_TEXT_(a) #a
#define SDFGAN_TEXT(a) SDFGAN_TEXT_(a)

namespace sdfgan::cpu {

#define SDFGAN_DECLARE(name, Parameters)                                    \
    void SDFGAN_LEVEL(name##_)(const Parameters<float>&, int64_t, int64_t); \
    void SDFGAN_LEVEL(name##_)(const Parameters<double>&, int64_t, int64_t);
SDFGAN_LOOPS(SDFGAN_DECLARE)
#undef SDFGAN_DECLARE

#define SDFGAN_DECLARE(T)                                                                        \
    int64_t SDFGAN_LEVEL(level_start_)(const StartLevel<T>&, uint8_t*, int64_t, int64_t);        \
    void SDFGAN_LEVEL(level_compact_)(const StartLevel<T>&, const uint8_t*, int64_t, int64_t,    \
                                      int64_t);                                                  \
    int64_t SDFGAN_LEVEL(trace_advance_)(const TraceStep<T>&, uint8_t*, int64_t, int64_t);       \
    void SDFGAN_LEVEL(trace_compact_)(const TraceStep<T>&, const uint8_t*, int64_t, int64_t,     \
                                      int64_t);                                                  \
    int64_t SDFGAN_LEVEL(layers_advance_)(const LayerStep<T>&, uint8_t*, int64_t, int64_t);      \
    void SDFGAN_LEVEL(layers_compact_)(const LayerStep<T>&, const uint8_t*, int64_t, int64_t,    \
                                       int64_t);                                                 \
    void SDFGAN_LEVEL(film_siren_)(const FilmSirenSample<T>&, const PointGroup*, int64_t);       \
    void SDFGAN_LEVEL(film_siren_backward_)(const FilmSirenBackward<T>&, BackwardWork<T>&, int); \
    void SDFGAN_LEVEL(film_siren_trace_)(const FilmSirenTrace<T>&, int);                         \
    void SDFGAN_LEVEL(perceptron_)(const Perceptron<T>&, int);                                   \
    void SDFGAN_LEVEL(perceptron_backward_)(const PerceptronBackward<T>&, int);
SDFGAN_DECLARE(float)
SDFGAN_DECLARE(double)
#undef SDFGAN_DECLARE

void SDFGAN_LEVEL(mesh_distance_)(const MeshDistance&, const int32_t*, int64_t, int64_t);
void SDFGAN_LEVEL(mesh_raycast_)(const MeshRaycast&, int64_t, int64_t);
double SDFGAN_LEVEL(multiply_adds_)(int64_t, bool);

namespace {

template <class T>
constexpr Kernels<T> kKernels = {
#define SDFGAN_ENTRY(name, Parameters) SDFGAN_LEVEL(name##_),
    SDFGAN_LOOPS(SDFGAN_ENTRY)
#undef SDFGAN_ENTRY
        SDFGAN_LEVEL(level_start_),
    SDFGAN_LEVEL(level_compact_),
    SDFGAN_LEVEL(trace_advance_),
    SDFGAN_LEVEL(trace_compact_),
    SDFGAN_LEVEL(layers_advance_),
    SDFGAN_LEVEL(layers_compact_),
    SDFGAN_LEVEL(film_siren_),
    SDFGAN_LEVEL(film_siren_backward_),
    SDFGAN_LEVEL(film_siren_trace_),
    SDFGAN_LEVEL(perceptron_),
    SDFGAN_LEVEL(perceptron_backward_),
};

#ifdef __AVX512BF16__
constexpr bool kBf16 = true;
#else
constexpr bool kBf16 = false;
#endif

}  // namespace

extern const Table SDFGAN_LEVEL(table_) = {
    SDFGAN_TEXT(SDFGAN_SIMD),
    kBf16,
    kKernels<float>,
    kKernels<double>,
    SDFGAN_LEVEL(multiply_adds_),
    SDFGAN_LEVEL(mesh_distance_),
    SDFGAN_LEVEL(mesh_raycast_),
};

}  // namespace sdfgan::cpu
