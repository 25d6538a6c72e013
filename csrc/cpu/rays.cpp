// The loop of core/rays.h.
#include "core/rays.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
void generate_rays(const GenerateRays<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) generate_ray(p, ray);
}

}  // namespace

SDFGAN_LOOP(generate_rays, GenerateRays)

}  // namespace sdfgan::cpu
