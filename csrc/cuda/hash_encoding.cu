// CUDA launches of the multiresolution hash grid (core/hash.h): a thread per point and level, or,
// for the gradient by the points, per point.
#include "core/hash.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

// Calls body(entry, ends) for the corners of a point's cell on a level.
template <class T, int kDims, class Body>
__device__ __forceinline__ void for_corners(const HashGrid<T>& grid, int64_t point, int level,
                                            const Body& body) {
    HashAxis<T> axes[kDims];
    for (int axis = 0; axis < kDims; ++axis) {
        axes[axis] = hash_axis(grid.points[point * kDims + axis], static_cast<T>(grid.cells[level]),
                               grid.smooth);
    }
#pragma unroll
    for (int corner = 0; corner < 1 << kDims; ++corner) {
        uint32_t at[kDims];
        HashEnd<T> ends[kDims];
        for (int axis = 0; axis < kDims; ++axis) {
            at[axis] = axes[axis].cell + hash_bit(corner, axis);
            ends[axis] = axes[axis].end[hash_bit(corner, axis)];
        }
        const uint32_t index = hash_index(at, grid.cells[level] + 2, grid.mask[level]);
        body((grid.begin[level] + index) * grid.features, ends);
    }
}

// The weight of the corner at these ends, or its derivative by coordinate `by`, if that is not -1.
template <class T, int kDims>
__device__ __forceinline__ T weigh(const HashEnd<T> (&ends)[kDims], int by, const T* direction) {
    T value[kDims], slope[kDims];
    for (int axis = 0; axis < kDims; ++axis) {
        value[axis] = axis == by ? ends[axis].weight[1] : ends[axis].weight[0];
        slope[axis] = axis == by ? ends[axis].weight[2] : ends[axis].weight[1];
    }
    if (!direction) return hash_weight(value);
    T along[kDims];
    for (int axis = 0; axis < kDims; ++axis) along[axis] = direction[axis];
    return hash_weight_along(value, slope, along);
}

template <int kDims, class T>
__device__ __forceinline__ const T* direction_at(const HashGrid<T>& grid, int64_t point) {
    return grid.direction ? grid.direction + point * kDims : nullptr;
}

template <class T, int kDims>
struct Encode {
    HashEncoding<T> p;

    __device__ void operator()(int64_t i) const {
        const HashGrid<T>& grid = p.grid;
        const int64_t point = i / grid.levels;
        const T* direction = direction_at<kDims>(grid, point);
        T sum[8] = {};
        for_corners<T, kDims>(grid, point, static_cast<int>(i % grid.levels),
                              [&](int64_t entry, const HashEnd<T>(&ends)[kDims]) {
                                  const T weight = weigh(ends, -1, direction);
                                  for (int f = 0; f < 8; ++f) {
                                      if (f < grid.features)
                                          sum[f] += weight * grid.table[entry + f];
                                  }
                              });
        for (int f = 0; f < 8; ++f) {
            if (f < grid.features) p.out[i * grid.features + f] = sum[f];
        }
    }
};

template <class T, int kDims>
struct PointsGradient {
    HashPointsGradient<T> p;

    __device__ void operator()(int64_t point) const {
        const HashGrid<T>& grid = p.grid;
        const T* direction = direction_at<kDims>(grid, point);
        T sum[kDims] = {};
        for (int level = 0; level < grid.levels; ++level) {
            const T* gradient = p.gradient + (point * grid.levels + level) * grid.features;
            for_corners<T, kDims>(grid, point, level,
                                  [&](int64_t entry, const HashEnd<T>(&ends)[kDims]) {
                                      T product = 0;
                                      for (int f = 0; f < grid.features; ++f) {
                                          product += gradient[f] * grid.table[entry + f];
                                      }
                                      for (int axis = 0; axis < kDims; ++axis) {
                                          sum[axis] += weigh(ends, axis, direction) * product;
                                      }
                                  });
        }
        for (int axis = 0; axis < kDims; ++axis) p.out[point * kDims + axis] = sum[axis];
    }
};

template <class T, int kDims>
struct TableGradient {
    HashTableGradient<T> p;

    __device__ void operator()(int64_t i) const {
        const HashGrid<T>& grid = p.grid;
        const int64_t point = i / grid.levels;
        const T* direction = direction_at<kDims>(grid, point);
        for_corners<T, kDims>(grid, point, static_cast<int>(i % grid.levels),
                              [&](int64_t entry, const HashEnd<T>(&ends)[kDims]) {
                                  const T weight = weigh(ends, -1, direction);
                                  for (int f = 0; f < grid.features; ++f) {
                                      atomicAdd(p.out + entry + f,
                                                weight * p.gradient[i * grid.features + f]);
                                  }
                              });
    }
};

}  // namespace

template <class T>
void launch(const HashEncoding<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    const int64_t n = p.grid.count * p.grid.levels;
    p.grid.dims == 2 ? for_each("hash_encoding", n, where, Encode<T, 2>{p})
                     : for_each("hash_encoding", n, where, Encode<T, 3>{p});
}

template <class T>
void launch(const HashPointsGradient<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    p.grid.dims == 2
        ? for_each("hash_points_gradient", p.grid.count, where, PointsGradient<T, 2>{p})
        : for_each("hash_points_gradient", p.grid.count, where, PointsGradient<T, 3>{p});
}

template <class T>
void launch(const HashTableGradient<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    const int64_t n = p.grid.count * p.grid.levels;
    p.grid.dims == 2 ? for_each("hash_table_gradient", n, where, TableGradient<T, 2>{p})
                     : for_each("hash_table_gradient", n, where, TableGradient<T, 3>{p});
}

template void launch(const HashEncoding<float>&, const Where&);
template void launch(const HashEncoding<double>&, const Where&);
template void launch(const HashPointsGradient<float>&, const Where&);
template void launch(const HashPointsGradient<double>&, const Where&);
template void launch(const HashTableGradient<float>&, const Where&);
template void launch(const HashTableGradient<double>&, const Where&);

}  // namespace sdfgan::cuda
