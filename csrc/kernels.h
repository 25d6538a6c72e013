// The kernels: one struct of parameters each, and launchers that take a struct and where to run.
// No torch and no CUDA here. Arrays are dense and row-major, on the device of `Where`; sizes may be
// zero. T is float or double.
#pragma once

#include <cstddef>
#include <cstdint>

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
};

// One tracing step of the rays that are alive, and their stable compaction; see core/trace.h.
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
    T* t;                  // [rays] updated
    T* best_value;         // [rays] updated
    T* best_t;             // [rays] updated
    uint8_t* status;       // [rays] updated: RayStatus
    T* points;             // [entries, 3] next points of the survivors, then zeros
    int32_t* alive_out;    // [entries] survivors in their order, then zeros
    int32_t* count_out;    // [1]
    void* workspace;       // trace_step_workspace(entries) bytes; CUDA only
    int64_t workspace_size;
    int64_t entries;
    int64_t rays;
    T threshold;
    T cone_slope;
    T step_scale;
};

// head . sin(W_L ... sin(W_0 x + s_0) ... + s_L) for points of several images, each with weights of
// its own. CPU only. The width is a multiple of 16.
template <class T>
struct FilmSiren {
    const T* points;          // [count, 3]
    const int64_t* image;     // [count], ascending; points of no image give NaN
    const T* const* weights;  // per layer [images, width, 3 or width]
    const T* const* shifts;   // per layer [images, width]
    const T* head;            // [width]
    T* out;                   // [count]
    int64_t count;
    int64_t images;
    int64_t width;
    int layers;
};

namespace cpu {
template <class T>
void launch(const FilmSiren<T>&, const Where&);
template <class T>
void launch(const PositionalEncoding<T>&, const Where&);
template <class T>
void launch(const SamplePdf<T>&, const Where&);
template <class T>
void launch(const GenerateRays<T>&, const Where&);
template <class T>
void launch(const TraceStep<T>&, const Where&);
const char* simd();                // the level in use
void set_simd(const char* level);  // "" for the best; throws when this CPU lacks it
bool openmp();
}  // namespace cpu

namespace cuda {
template <class T>
void launch(const PositionalEncoding<T>&, const Where&);
template <class T>
void launch(const SamplePdf<T>&, const Where&);
template <class T>
void launch(const GenerateRays<T>&, const Where&);
template <class T>
void launch(const TraceStep<T>&, const Where&);
int64_t trace_step_workspace(int device, int64_t entries);  // bytes
}  // namespace cuda

}  // namespace sdfgan
