// The loops of core/trace.h.
#include "core/trace.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
int64_t level_start(const StartLevel<T>& p, uint8_t* keep, int64_t begin, int64_t end) {
    int64_t marching = 0;
    for (int64_t ray = begin; ray < end; ++ray) {
        keep[ray] = start_ray(p, ray);
        marching += keep[ray];
    }
    return marching;
}

template <class T>
void level_compact(const StartLevel<T>& p, const uint8_t* keep, int64_t begin, int64_t end,
                   int64_t slot) {
    for (int64_t ray = begin; ray < end; ++ray) {
        if (!keep[ray]) continue;
        p.alive[slot] = static_cast<int32_t>(ray);
        first_point(p, slot);
        ++slot;
    }
}

template <class T>
int64_t trace_advance(const TraceStep<T>& p, uint8_t* keep, int64_t begin, int64_t end) {
    int64_t survivors = 0;
    for (int64_t entry = begin; entry < end; ++entry) {
        keep[entry] = trace_ray(p, entry);
        survivors += keep[entry];
    }
    return survivors;
}

template <class T>
void trace_compact(const TraceStep<T>& p, const uint8_t* keep, int64_t begin, int64_t end,
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
    int64_t SDFGAN_LEVEL(level_start_)(const StartLevel<T>& p, uint8_t* keep, int64_t begin,      \
                                       int64_t end) {                                             \
        return level_start(p, keep, begin, end);                                                  \
    }                                                                                             \
    void SDFGAN_LEVEL(level_compact_)(const StartLevel<T>& p, const uint8_t* keep, int64_t begin, \
                                      int64_t end, int64_t slot) {                                \
        level_compact(p, keep, begin, end, slot);                                                 \
    }                                                                                             \
    int64_t SDFGAN_LEVEL(trace_advance_)(const TraceStep<T>& p, uint8_t* keep, int64_t begin,     \
                                         int64_t end) {                                           \
        return trace_advance(p, keep, begin, end);                                                \
    }                                                                                             \
    void SDFGAN_LEVEL(trace_compact_)(const TraceStep<T>& p, const uint8_t* keep, int64_t begin,  \
                                      int64_t end, int64_t slot) {                                \
        trace_compact(p, keep, begin, end, slot);                                                 \
    }
SDFGAN_DEFINE(float)
SDFGAN_DEFINE(double)

}  // namespace sdfgan::cpu
