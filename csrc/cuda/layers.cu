// The search for layers on CUDA: advance each, and keep those that go on.
#include "core/layers.h"

#include "cuda/compact.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct Search {
    LayerStep<T> p;
    uint8_t* keep;
    __device__ void operator()(int64_t entry) const {
        keep[entry] = entry < live_entries(p) && search_layer(p, entry);
    }
};

template <class T>
struct NextLayerPoint {
    LayerStep<T> p;
    __device__ void operator()(int64_t slot) const {
        slot < *p.count_out ? next_point(p, slot) : fill(slot, *p.count_out, p.alive_out, p.points);
    }
};

}  // namespace

template <class T>
void launch(const LayerStep<T>& p, const Where& where) {
    compact<Search<T>, NextLayerPoint<T>>("layer_step", p, where, p.entries, p.alive,
                                          p.alive_out, p.count_out);
}

SDFGAN_INSTANTIATE_LAUNCH(LayerStep)

}  // namespace sdfgan::cuda
