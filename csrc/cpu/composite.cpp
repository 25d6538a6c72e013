// The loops of core/composite.h.
#include "core/composite.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
void composite(const Composite<T>& p, int64_t begin, int64_t end) {
    constexpr int kBlock = 64;
    for (int64_t ray = begin; ray < end; ++ray) {
        p.channels == 3 ? composite_ray<3, kBlock>(p, ray) : composite_ray<0, kBlock>(p, ray);
    }
}

template <class T>
void composite_backward(const CompositeBackward<T>& p, int64_t begin, int64_t end) {
    constexpr int kBlock = 64;
    for (int64_t ray = begin; ray < end; ++ray) {
        p.channels == 3 ? composite_ray_backward<3, kBlock>(p, ray)
                        : composite_ray_backward<0, kBlock>(p, ray);
    }
}

}  // namespace

SDFGAN_LOOP(composite, Composite)
SDFGAN_LOOP(composite_backward, CompositeBackward)

}  // namespace sdfgan::cpu
