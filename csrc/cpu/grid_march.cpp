// The CPU loops of core/grid_march.h, compiled once per instruction set, without fused products.
#include "core/grid_march.h"

#include "cpu/table.h"

namespace sdfgan::cpu {

// volume.cpp puts these into the table of this instruction set.
#define SDFGAN_DEFINE(T)                                                                        \
    void SDFGAN_LEVEL(march_count_)(const MarchCount<T>& p, int64_t begin, int64_t end) {       \
        for (int64_t ray = begin; ray < end; ++ray) march_count_ray(p, ray);                    \
    }                                                                                           \
    void SDFGAN_LEVEL(march_samples_)(const MarchSamples<T>& p, int64_t begin, int64_t end) {   \
        for (int64_t ray = begin; ray < end; ++ray) march_samples_ray(p, ray);                  \
    }                                                                                           \
    void SDFGAN_LEVEL(march_reached_)(const MarchReached<T>& p, int64_t begin, int64_t end) {   \
        for (int64_t ray = begin; ray < end; ++ray) march_reached_ray(p, ray);                  \
    }
SDFGAN_DEFINE(float)
SDFGAN_DEFINE(double)

}  // namespace sdfgan::cpu
