// Where the samples of rays are.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

// Where the samples of R rays are: ray r has [offsets[r], offsets[r+1]), or `samples` of them each.
struct RaySamples {
    const int64_t* offsets;  // [rays + 1], or null
    int64_t rays;
    int64_t samples;  // of each ray without offsets, else of all together

    SDFGAN_FIELDS(offsets, rays, samples)
};

}  // namespace sdfgan
