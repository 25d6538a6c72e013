// The table of the kernels for volumes, beside that of table.h.
#pragma once

#include "cpu/table.h"

namespace sdfgan::cpu {

template <class T>
struct VolumeKernels {
    void (*composite)(const Composite<T>&, int64_t begin,
                      int64_t end);  // rays, as all without a word
    void (*composite_backward)(const CompositeBackward<T>&, int64_t begin, int64_t end);
    void (*overlap_sums)(const OverlapSums<T>&, int64_t begin, int64_t end);
    void (*distortion)(const Distortion<T>&, int64_t begin, int64_t end);
    void (*sample_pixels)(const SamplePixels<T>&, int64_t begin, int64_t end);          // pixels
    void (*march_count)(const MarchCount<T>&, int64_t begin, int64_t end);
    void (*march_samples)(const MarchSamples<T>&, int64_t begin, int64_t end);
    void (*march_reached)(const MarchReached<T>&, int64_t begin, int64_t end);
    void (*frustum_gaussians)(const FrustumGaussians<T>&, int64_t begin, int64_t end);  // pieces
    void (*integrated_positional_encoding)(const IntegratedPositionalEncoding<T>&, int64_t begin,
                                           int64_t end);  // points
    void (*integrated_directional_encoding)(const IntegratedDirectionalEncoding<T>&, int64_t begin,
                                            int64_t end);  // directions
};

}  // namespace sdfgan::cpu
