// The kernels: one struct of parameters each, and launchers that take a struct and where to run.
// No torch and no CUDA here. Arrays are dense and row-major, on the device of `Where`; sizes may be
// zero. T is float or double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/march.h"
#include "kernels_volume.h"

namespace sdfgan {

struct Where {
    int device;    // CUDA device, or -1 for the CPU
    void* stream;  // cudaStream_t; CUDA only
    int threads;   // CPU only
};

// out = [x?, sin(x 2^0), cos(x 2^0), sin(x 2^1), ...], each of `dims` values; see core/encoding.h.
template <class T>
struct PositionalEncoding {
    const T* x;  // [points, dims]
    T* out;      // [points, width]
    int64_t points;
    int64_t dims;
    int64_t width;  // (include_input + 2 * octaves) * dims
    int octaves;
    bool include_input;
    bool times_pi;
};

// Samples of the piecewise-constant density of each ray; see core/pdf.h.
template <class T>
struct SamplePdf {
    const T* edges;    // [rays, bins + 1] ascending
    const T* weights;  // [rays, bins]
    const T* u;        // ascending in [0, 1]: [rays, samples], or [samples] for all rays
    T* out;            // [rays, samples] ascending
    int64_t rays;
    int64_t bins;
    int64_t samples;
    int64_t u_stride;  // from one ray's u to the next: samples or 0
};

// Rays through pixel centres, clipped to the ball; see core/rays.h.
template <class T>
struct GenerateRays {
    const T* cameras;       // [cameras, 3, 4] camera to world
    const int64_t* pixels;  // [rays] (b*height + row)*width + column; outside the images: NaN rays
    T* origins;             // [rays, 3]
    T* directions;          // [rays, 3] unit
    T* near;                // [rays]
    T* far;                 // [rays]
    int64_t rays;
    int64_t camera_count;
    int64_t height;
    int64_t width;
    T plane_distance;  // 1/tan(fov/2)
    T radius;
    const T* radii;  // [camera_count] in its place, or null
};

// A perceptron of one output at many points; on a CPU only. Features between layers are
// max(x, 0) + constant * min(x, 0) of the sums or, if `sine`, sin(constant * x).
template <class T>
struct Perceptron {
    const T* x;           // [count, sizes[0]]
    const T* parameters;  // of each layer, in panels of 8 outputs, the last filled up with zeros:
                          // weights [panels, inputs, 8], then biases [panels, 8]
    T* out;               // [count]
    int64_t count;
    const int64_t* sizes;  // [layers + 1] features before, between and after layers; the last is 1
    int layers;
    bool sine;
    T constant;
};

constexpr int kMostHashLevels = 32;

// A multiresolution hash grid at many points; see core/hash.h.
template <class T>
struct HashGrid {
    const T* points;     // [count, dims]
    const T* table;      // [begin[levels], features]; unused by HashTableGradient
    const T* direction;  // [count, dims]: derivatives along it take the place of values; or null
    int64_t count;
    int dims;      // 2 or 3
    int features;  // of a level: 1, 2, 4 or 8
    int levels;
    bool smooth;                         // weights with a continuous slope, else linear ones
    uint32_t cells[kMostHashLevels];     // along an axis
    uint32_t mask[kMostHashLevels];      // entries - 1 of a level that is hashed, else 0
    int64_t begin[kMostHashLevels + 1];  // a level's first entry
};

// Features at the points.
template <class T>
struct HashEncoding {
    HashGrid<T> grid;
    T* out;  // [count, levels * features]
};

// What a gradient by the features means for the points.
template <class T>
struct HashPointsGradient {
    HashGrid<T> grid;
    const T* gradient;  // [count, levels * features]
    T* out;             // [count, dims]
};

// What it means for the table.
template <class T>
struct HashTableGradient {
    HashGrid<T> grid;
    const T* gradient;  // [count, levels * features]
    T* out;             // like the table; added to
};

// Where the layers of rays go; see core/march.h.
template <class T>
struct LayerArrays {
    T* layers;       // [most, 4, rays] the members of Layer; null: none are collected
    uint8_t* count;  // [rays] updated
    T* open;         // [5, rays] updated: the members of OpenLayer; unused by FilmSirenTrace
    int most;
};

// One evaluation of the rays that are alive, and their stable compaction; see core/march.h.
// Entry k < count is ray alive[k], whose field value is values[k]. Entries outside [0, rays) are
// dropped. Each ray occurs at most once.
template <class T>
struct TraceStep {
    const T* values;       // [entries]
    const int32_t* alive;  // [entries]
    const int32_t* count;  // [1], on the device
    const T* origins;      // [rays, 3]
    const T* directions;   // [rays, 3]
    const T* far;          // [rays]
    T* state;              // [5, rays] updated: t, nearest, nearest_t, last_value, last_step
    uint8_t* status;       // [rays] updated: RayStatus
    T* points;             // [entries, 3] next points of the survivors, then zeros
    int32_t* alive_out;    // [entries] survivors in their order, then the last one again
    int32_t* count_out;    // [1]
    void* workspace;       // trace_step_workspace(entries) bytes; CUDA only
    int64_t workspace_size;
    int64_t entries;
    int64_t rays;
    MarchRules<T> rules;
    LayerArrays<T> layers;
    bool last;  // no step follows: layers end with it
};

// The rays of all pixels of one level of a trace, in the order of the pixels, and a list of those
// that are to be evaluated; see core/trace.h. rays = images * size^2.
template <class T>
struct StartLevel {
    const T* cameras;              // [images, 3, 4] camera to world
    const T* parent_state;         // [5, images * parent_size^2] of the level before; null: none
    const uint8_t* parent_status;  // [images * parent_size^2]
    const T* jitter;               // [rays] added to the start, or null
    T* origins;                    // [rays, 3]
    T* directions;                 // [rays, 3] unit
    T* start;                      // [rays]
    T* far;                        // [rays]
    T* state;                      // [5, rays]
    uint8_t* status;               // [rays] kMarching or kUntraced
    T* points;                     // [rays, 3] where to evaluate first, then zeros
    int32_t* alive;                // [rays] the rays that march, then the last one again
    int32_t* count;                // [1] how many
    void* workspace;               // start_level_workspace(rays) bytes; CUDA only
    int64_t workspace_size;
    int64_t images, size, parent_size;
    T plane_distance;  // 1/tan(fov/2)
    T radius, offset;  // TraceLevel's radius and start
    T parent_reach;    // TraceLevel's reach, of the level before
    const T* radii;    // [images] in place of the radius, or null
};

// A FiLM-SIREN with a ball as prior (sdfgan/fields/film_siren.py): layers sin(scale (W x) + shift),
// first the trunk, then the branch of the sdf, then that of the texture, both fed by the trunk.
//   sdf = sdf_head . features + sqrt(|x|^2 + constants[0]) + constants[1]
// sdfgan.ops.pack_matrices lays out the matrices between layers for each device and precision. On a
// CPU the width is a multiple of 16; on CUDA it is 64, 128 or 256, and T is float.
enum class Matrices { kFull, kBrain, kHalf };  // of T; of bfloat16; of fp16
template <class T>
struct FilmSiren {
    const T* first;          // [width, 3]
    const void* hidden;      // [layers - 1, width, width], packed
    const void* transposed;  // the transposed matrices, for the gradient; CPU only
    const T* sdf_head;       // [width]
    const T* texture_head;   // [3, width]
    const T* constants;      // [2]
    const T* scale;          // [images, layers, width]
    const T* shift;          // [images, layers, width]
    const T* film;           // [images, layers, width / 2, 4]: scale, scale, shift, shift of two
                             // outputs; kHalf only
    int64_t images;
    int64_t width;
    int trunk_layers, sdf_layers, texture_layers;
    Matrices matrices;
};

// A FiLM-SIREN at many points. texture_layers may be 0.
template <class T>
struct FilmSirenSample {
    FilmSiren<T> network;
    const T* points;       // [count, 3]
    const int64_t* image;  // [count]; points of no image give NaN
    T* sdf;                // [count]
    T* gradient;           // [count, 3], or null
    T* texture;            // [count, 3] texture_head . features, or null
    int64_t count;
};

// One resolution of FilmSirenTrace.
template <class T>
struct TraceLevel {
    int64_t size;   // pixels along a side; a multiple of the level before
    int64_t steps;  // most evaluations of a ray
    MarchRules<T> rules;
    T radius;    // of the ball that rays are clipped to
    T start;     // rays start that far behind where they enter the ball
    T reach;     // 0: cones, split where they end; else the seed's rule: a ray is split if its
                 // nearest value is at most sqrt((reach * its t)^2 / 2 + 1/1024)
    T patience;  // after so many evaluations a ray's slack has doubled; it grows linearly
};

// Surfaces of FiLM-SIRENs in square pictures, one per image; see film_siren_trace.cpp and .cu.
// Pixels without a ray keep what status, distance and nearest held before.
template <class T>
struct FilmSirenTrace {
    FilmSiren<T> network;
    const T* cameras;  // [images, 3, 4] camera to world
    const TraceLevel<T>* levels;
    const T* jitter;  // [images, size, size] added to the start of the last level's rays, or null
    uint8_t* status;  // [images, size, size] RayStatus, or kUntraced
    T* distance;      // [images, size, size] of the hit or the nearest miss
    T* nearest;       // [images, size, size] smallest value of the traced function
    int64_t* counts;  // [2] 0; points evaluated for rays, and in all (with idle lanes)
    LayerArrays<T> layers;  // of the rays of the last level; rays = images * size^2
    void* workspace;        // film_siren_trace_workspace() bytes; CUDA only
    int64_t level_count;
    T plane_distance;  // 1/tan(fov/2)
};

// A triangle mesh and the tree over it; core/mesh.h says what nodes and leaves hold.
struct MeshTree {
    const float* vertices;      // [vertices, 3]
    const int32_t* faces;       // [faces, 3]
    const float* nodes;         // [nodes, kNodeRows, 8]; the first one is the root
    const int32_t* children;    // [nodes, 8] node, or ~leaf, or kNone
    const float* leaves;        // [leaves, kTriangleRows, 8] triangles
    const int32_t* leaf_faces;  // [leaves, 8]
    const bool* closed;         // [] winding numbers are whole; read on the CPU only
};

// Signed distances to a mesh; see core/mesh.h. Points that are not finite give NaN and face -1.
struct MeshDistance {
    MeshTree tree;
    const float* points;   // [count, 3]
    const int32_t* order;  // [count] in which points are taken, or null; CUDA only
    float* distance;       // [count] negative where winding > 1/2
    int32_t* face;         // [count] one that is nearest
    float* closest;        // [count, 3] its point
    float* winding;        // [count]
    int64_t count;
};

namespace cpu {
// The tree over some triangles, made on the CPU; the same for any number of threads.
struct MeshTreeArrays {
    std::vector<float> nodes, leaves;
    std::vector<int32_t> children, leaf_faces;
};
// faces >= 1; indices in range; finite vertices.
MeshTreeArrays build_mesh_tree(const float* vertices, const int32_t* faces, int64_t face_count,
                               int threads);
void launch(const MeshDistance&, const Where&);
template <class T>
void launch(const FilmSirenSample<T>&, const Where&);
template <class T>
void launch(const FilmSirenTrace<T>&, const Where&);
template <class T>
void launch(const PositionalEncoding<T>&, const Where&);
template <class T>
void launch(const SamplePdf<T>&, const Where&);
template <class T>
void launch(const GenerateRays<T>&, const Where&);
template <class T>
void launch(const Perceptron<T>&, const Where&);
template <class T>
void launch(const HashEncoding<T>&, const Where&);
template <class T>
void launch(const HashPointsGradient<T>&, const Where&);
template <class T>
void launch(const HashTableGradient<T>&, const Where&);
template <class T>
void launch(const TraceStep<T>&, const Where&);
template <class T>
void launch(const StartLevel<T>&, const Where&);
const char* simd();                // the level in use
void set_simd(const char* level);  // "" for the best; throws when this CPU lacks it
bool openmp();
bool has_bf16();  // in hardware, at the level in use
// Multiply-adds of vectors in registers, as fast as they go; returns how many FLOP that was.
double multiply_adds(int threads, bool bf16);
}  // namespace cpu

namespace cuda {
void launch(const MeshDistance&, const Where&);
template <class T>
void launch(const PositionalEncoding<T>&, const Where&);
template <class T>
void launch(const SamplePdf<T>&, const Where&);
template <class T>
void launch(const GenerateRays<T>&, const Where&);
template <class T>
void launch(const HashEncoding<T>&, const Where&);
template <class T>
void launch(const HashPointsGradient<T>&, const Where&);
template <class T>
void launch(const HashTableGradient<T>&, const Where&);
template <class T>
void launch(const TraceStep<T>&, const Where&);
template <class T>
void launch(const StartLevel<T>&, const Where&);
void launch(const FilmSirenSample<float>&, const Where&);
void launch(const FilmSirenTrace<float>&, const Where&);
void launch(const FilmSirenSample<double>&, const Where&);  // these two throw
void launch(const FilmSirenTrace<double>&, const Where&);
int64_t start_level_workspace(int device, int64_t rays);                                // bytes
int64_t trace_step_workspace(int device, int64_t entries);                              // bytes
int64_t film_siren_trace_workspace(int64_t images, const std::vector<int64_t>& sizes);  // bytes
}  // namespace cuda

}  // namespace sdfgan
