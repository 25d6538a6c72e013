// What runs the kernels: on each device a function launch(parameters, where) of every struct.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/adam.h"
#include "kernels/composite.h"
#include "kernels/edges.h"
#include "kernels/encoding.h"
#include "kernels/film_siren.h"
#include "kernels/grid_march.h"
#include "kernels/hash.h"
#include "kernels/histogram.h"
#include "kernels/integrated.h"
#include "kernels/layers.h"
#include "kernels/mesh.h"
#include "kernels/pdf.h"
#include "kernels/perceptron.h"
#include "kernels/pixels.h"
#include "kernels/rays.h"
#include "kernels/trace.h"

// Kernels of both devices and of float and double: their names in Python and their parameters.
// First those whose elements are independent. On a CPU each is a loop over the elements [begin,
// end): points, rays, pixels or pieces; of hash_table_gradient levels, so that no two threads write
// to one entry; of lazy_adam lines of kAdamLine numbers.
#define SDFGAN_LOOPS(X)                                               \
    X(composite, Composite)                                           \
    X(composite_backward, CompositeBackward)                          \
    X(distortion, Distortion)                                         \
    X(frustum_gaussians, FrustumGaussians)                            \
    X(generate_rays, GenerateRays)                                    \
    X(hash_encoding, HashEncoding)                                    \
    X(hash_points_gradient, HashPointsGradient)                       \
    X(hash_table_gradient, HashTableGradient)                         \
    X(integrated_directional_encoding, IntegratedDirectionalEncoding) \
    X(integrated_positional_encoding, IntegratedPositionalEncoding)   \
    X(layer_edges, LayerEdges)                                        \
    X(lazy_adam, LazyAdam)                                            \
    X(march_count, MarchCount)                                        \
    X(march_reached, MarchReached)                                    \
    X(march_samples, MarchSamples)                                    \
    X(overlap_sums, OverlapSums)                                      \
    X(positional_encoding, PositionalEncoding)                        \
    X(sample_pdf, SamplePdf)                                          \
    X(sample_pixels, SamplePixels)

// All of them.
#define SDFGAN_KERNELS(X)               \
    SDFGAN_LOOPS(X)                     \
    X(film_siren, FilmSirenSample)      \
    X(film_siren_trace, FilmSirenTrace) \
    X(layer_step, LayerStep)            \
    X(start_level, StartLevel)          \
    X(trace_step, TraceStep)

// Also of both; in a file of its own on a CPU.
#define SDFGAN_GRADIENT_KERNELS(X) X(film_siren_backward, FilmSirenBackward)

// Those of a CPU alone.
#define SDFGAN_CPU_KERNELS(X) \
    X(perceptron, Perceptron) \
    X(perceptron_backward, PerceptronBackward)

// Each is defined where SDFGAN_INSTANTIATE_LAUNCH stands.
#define SDFGAN_DECLARE_LAUNCH(name, Parameters) \
    template <class T>                          \
    void launch(const Parameters<T>&, const Where&);
#define SDFGAN_INSTANTIATE_LAUNCH(Parameters)                     \
    template void launch(const Parameters<float>&, const Where&); \
    template void launch(const Parameters<double>&, const Where&);

namespace sdfgan {

struct Where {
    int device;    // CUDA device, or -1 for the CPU
    void* stream;  // cudaStream_t; CUDA only
    int threads;   // CPU only
};

namespace cpu {

SDFGAN_KERNELS(SDFGAN_DECLARE_LAUNCH)
SDFGAN_GRADIENT_KERNELS(SDFGAN_DECLARE_LAUNCH)
SDFGAN_CPU_KERNELS(SDFGAN_DECLARE_LAUNCH)
void launch(const MeshDistance&, const Where&);
void launch(const MeshRaycast&, const Where&);

const char* simd();                // the level in use
void set_simd(const char* level);  // "" for the best; throws when this CPU lacks it
bool openmp();
bool has_bf16();  // in hardware, at the level in use
// Multiply-adds of vectors in registers, as fast as they go; returns how many FLOP that was.
double multiply_adds(int threads, bool bf16);

}  // namespace cpu

namespace cuda {

SDFGAN_KERNELS(SDFGAN_DECLARE_LAUNCH)  // those of FiLM-SIRENs throw for double
SDFGAN_GRADIENT_KERNELS(SDFGAN_DECLARE_LAUNCH)
void launch(const MeshDistance&, const Where&);
void launch(const MeshRaycast&, const Where&);

int64_t start_level_workspace(int device, int64_t rays);    // bytes
int64_t trace_step_workspace(int device, int64_t entries);  // bytes
int64_t film_siren_backward_workspace(int device, int64_t count, int64_t images, int64_t width,
                                      int64_t layers, bool half);  // bytes
int64_t film_siren_trace_workspace(int device, int64_t images,
                                   const std::vector<int64_t>& sizes);  // bytes

}  // namespace cuda
}  // namespace sdfgan
