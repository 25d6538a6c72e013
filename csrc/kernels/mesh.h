// Distances to triangle meshes, and rays that meet them; core/mesh.h has the maths.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/fields.h"

namespace sdfgan {

// A triangle mesh and the tree over it; core/mesh.h says what nodes and leaves hold.
struct MeshTree {
    const float* vertices;      // [vertices, 3]
    const int32_t* faces;       // [faces, 3]
    const float* nodes;         // [nodes, kNodeRows, 8]; the first one is the root
    const int32_t* children;    // [nodes, 8] node, or ~leaf, or kNone
    const float* leaves;        // [leaves, kTriangleRows, 8] triangles
    const int32_t* leaf_faces;  // [leaves, 8]
    const bool* closed;         // [] winding numbers are whole; read on the CPU only

    SDFGAN_FIELDS(vertices, faces, nodes, children, leaves, leaf_faces, closed)
};

// Signed distances to a mesh; see core/mesh.h. Points that are not finite give NaN and face -1.
struct MeshDistance {
    MeshTree tree;
    const float* points;   // [count, 3]
    const int32_t* order;  // [count] in which points are taken, or null; CUDA only
    float* distance;       // [count] negative where winding > 1/2
    int32_t* face;         // [count] one that is nearest
    float* closest;        // [count, 3] its point
    float* winding;        // [count]
    int64_t count;

    SDFGAN_FIELDS(tree, points, order, distance, face, closest, winding, count)
};

// Where rays meet a mesh first, from either side; see core/mesh_raycast.h. Rays that are not finite
// give NaN and face -1.
struct MeshRaycast {
    MeshTree tree;
    const float* origins;     // [count, 3]
    const float* directions;  // [count, 3] of any length
    float* distance;          // [count] in lengths of the direction; infinite where nothing is met
    int32_t* face;            // [count] or -1
    float* barycentric;       // [count, 3] weights of the face's corners; 0 for none
    int64_t count;

    SDFGAN_FIELDS(tree, origins, directions, distance, face, barycentric, count)
};

namespace cpu {

// The tree over some triangles, made on the CPU; the same for any number of threads.
struct MeshTreeArrays {
    std::vector<float> nodes, leaves;
    std::vector<int32_t> children, leaf_faces;
};

// faces >= 1; indices in range; finite vertices.
MeshTreeArrays build_mesh_tree(const float* vertices, const int32_t* faces, int64_t face_count,
                               int threads);

}  // namespace cpu
}  // namespace sdfgan
