// Edges of layers on CUDA: a thread per layer.
#include "core/edges.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

template <class T>
struct EdgeOfLayer {
    LayerEdges<T> p;
    __device__ void operator()(int64_t i) const { edge_of_layer(p, i); }
};

}  // namespace

template <class T>
void launch(const LayerEdges<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    for_each("layer_edges", p.layers, where, EdgeOfLayer<T>{p});
}

SDFGAN_INSTANTIATE_LAUNCH(LayerEdges)

}  // namespace sdfgan::cuda
