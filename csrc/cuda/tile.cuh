// What goes into the networks of a block and comes out, in shared memory.
//
// A row is a point, or for gradients a fourth of one: the value and its derivatives along x, y, z
// (forward mode: the derivative of sin(scale s + shift) is cos(scale s + shift) scale ds). Blocks
// put the points of their rows and their FiLM into a Tile, call evaluate() of a network, and find
// the heads' products with the last features there.
#pragma once

#include "cuda/launch.cuh"

namespace sdfgan::cuda {

constexpr int kNetworkThreads = 256;
constexpr int kWarps = kNetworkThreads / 32;

// The layers that lead to one result: [0, trunk), then [begin, end). At least one.
struct Path {
    int trunk, begin, end;
    __host__ __device__ int length() const { return trunk + end - begin; }
    __host__ __device__ int layer(int step) const {
        return step < trunk ? step : begin + step - trunk;
    }
};

// In shared memory: what goes in and comes out.
template <int kRows, int kTangents, int kHeads>
struct Tile {
    static constexpr int kOfPoint = kTangents ? 4 : 1;  // rows
    static constexpr int kPoints = kRows / kOfPoint;
    float x[kPoints][3];
    uint32_t film[kPoints];      // offset of the image's FiLM in scale and shift
    float value[kHeads][kRows];  // row of point i, and of its derivative along axis j - 1: 4 i + j
};

// What a row's first layer is multiplied with: the point, or the axis of the derivative.
template <class Tile>
__device__ __forceinline__ float row_input(const Tile& tile, int point, int kind, int axis) {
    return kind == 0 ? tile.x[point][axis] : (axis == kind - 1 ? 1.f : 0.f);
}

}  // namespace sdfgan::cuda
