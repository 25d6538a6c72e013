// The loop of core/edges.h.
#include "core/edges.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
void layer_edges(const LayerEdges<T>& p, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) edge_of_layer(p, i);
}

}  // namespace

SDFGAN_LOOP(layer_edges, LayerEdges)

}  // namespace sdfgan::cpu
