// The loops of core/grid_march.h, without fused products.
#include "core/grid_march.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
void march_count(const MarchCount<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) march_count_ray(p, ray);
}

template <class T>
void march_samples(const MarchSamples<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) march_samples_ray(p, ray);
}

template <class T>
void march_reached(const MarchReached<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) march_reached_ray(p, ray);
}

}  // namespace

SDFGAN_LOOP(march_count, MarchCount)
SDFGAN_LOOP(march_reached, MarchReached)
SDFGAN_LOOP(march_samples, MarchSamples)

}  // namespace sdfgan::cpu
