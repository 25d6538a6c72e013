// The loops of core/histogram.h.
#include "core/histogram.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
void overlap_sums(const OverlapSums<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) overlap_sums_ray(p, ray);
}

template <class T>
void distortion(const Distortion<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) distortion_ray(p, ray);
}

}  // namespace

SDFGAN_LOOP(distortion, Distortion)
SDFGAN_LOOP(overlap_sums, OverlapSums)

}  // namespace sdfgan::cpu
