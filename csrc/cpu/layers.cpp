// The loops of core/layers.h.
#include "core/layers.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
int64_t layers_advance(const LayerStep<T>& p, uint8_t* keep, int64_t begin, int64_t end) {
    int64_t survivors = 0;
    for (int64_t entry = begin; entry < end; ++entry) {
        keep[entry] = search_layer(p, entry);
        survivors += keep[entry];
    }
    return survivors;
}

template <class T>
void layers_compact(const LayerStep<T>& p, const uint8_t* keep, int64_t begin, int64_t end,
                    int64_t slot) {
    for (int64_t entry = begin; entry < end; ++entry) {
        if (!keep[entry]) continue;
        p.alive_out[slot] = p.alive[entry];
        next_point(p, slot);
        ++slot;
    }
}

}  // namespace

// table.cpp puts these into the table of this instruction set.
#define SDFGAN_DEFINE(T)                                                                          \
    int64_t SDFGAN_LEVEL(layers_advance_)(const LayerStep<T>& p, uint8_t* keep, int64_t begin,    \
                                          int64_t end) {                                          \
        return layers_advance(p, keep, begin, end);                                               \
    }                                                                                             \
    void SDFGAN_LEVEL(layers_compact_)(const LayerStep<T>& p, const uint8_t* keep, int64_t begin, \
                                       int64_t end, int64_t slot) {                               \
        layers_compact(p, keep, begin, end, slot);                                                \
    }
SDFGAN_DEFINE(float)
SDFGAN_DEFINE(double)

}  // namespace sdfgan::cpu
