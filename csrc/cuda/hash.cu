// CUDA launches of the multiresolution hash grid (core/hash.h): a thread per point and level, or,
// for the gradient by the points, per point. Points go faster than levels: what is looked up at the
// same time is of one level, and that stays in the caches.
#include <initializer_list>
#include <type_traits>

#include "core/hash.h"
#include "cuda/launch.cuh"

namespace sdfgan::cuda {
namespace {

// The features of an entry, or the gradients by them, in registers. kFeatures: their number where
// it is known to the compiler and entries are aligned, so that they are read at once; else 0.
template <class T, int kFeatures>
struct Features {
    static constexpr int kMost = kFeatures ? kFeatures : 8;
    static constexpr int kBytes = kFeatures * static_cast<int>(sizeof(T));
    struct alignas(kBytes < 16 ? (kBytes ? kBytes : sizeof(T)) : 16) Values {
        T of[kMost];
    } values;

    __device__ __forceinline__ void load(const T* source, int features) {
        if constexpr (kFeatures > 0) {
            values = *reinterpret_cast<const Values*>(source);
        } else {
            for (int f = 0; f < kMost; ++f) values.of[f] = f < features ? source[f] : T(0);
        }
    }

    __device__ __forceinline__ void store(T* target, int features) const {
        if constexpr (kFeatures > 0) {
            *reinterpret_cast<Values*>(target) = values;
        } else {
            for (int f = 0; f < kMost; ++f) {
                if (f < features) target[f] = values.of[f];
            }
        }
    }

    // Adds weight times these.
    __device__ __forceinline__ void add_to(T* target, T weight, int features) const {
        if constexpr (kFeatures == 2) {
            add_2(target, weight * values.of[0], weight * values.of[1]);
        } else if constexpr (kFeatures % 4 == 0 && kFeatures > 0) {
#pragma unroll
            for (int f = 0; f < kFeatures; f += 4) {
                add_4(target + f, weight * values.of[f], weight * values.of[f + 1],
                      weight * values.of[f + 2], weight * values.of[f + 3]);
            }
        } else {
            for (int f = 0; f < kMost; ++f) {
                if (f < features) atomicAdd(target + f, weight * values.of[f]);
            }
        }
    }
};

// The point and the level of a thread.
template <class T>
__device__ __forceinline__ int64_t point_of(const HashGrid<T>& grid, int64_t i, int& level) {
    level = static_cast<int>(i / grid.count);
    return i - level * grid.count;
}

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

template <class T, int kDims, int kFeatures>
struct Encode {
    HashEncoding<T> p;

    __device__ void operator()(int64_t i) const {
        const HashGrid<T>& grid = p.grid;
        int level;
        const int64_t point = point_of(grid, i, level);
        const T* direction = direction_at<kDims>(grid, point);
        Features<T, kFeatures> sum{}, entry;
        for_corners<T, kDims>(grid, point, level,
                              [&](int64_t first, const HashEnd<T>(&ends)[kDims]) {
                                  const T weight = weigh(ends, -1, direction);
                                  entry.load(grid.table + first, grid.features);
#pragma unroll
                                  for (int f = 0; f < entry.kMost; ++f)
                                      sum.values.of[f] += weight * entry.values.of[f];
                              });
        sum.store(p.out + (point * grid.levels + level) * grid.features, grid.features);
    }
};

template <class T, int kDims, int kFeatures>
struct PointsGradient {
    HashPointsGradient<T> p;

    __device__ void operator()(int64_t point) const {
        const HashGrid<T>& grid = p.grid;
        const T* direction = direction_at<kDims>(grid, point);
        Features<T, kFeatures> gradient, entry;
        T sum[kDims] = {};
        for (int level = 0; level < grid.levels; ++level) {
            gradient.load(p.gradient + (point * grid.levels + level) * grid.features,
                          grid.features);
            for_corners<T, kDims>(grid, point, level,
                                  [&](int64_t first, const HashEnd<T>(&ends)[kDims]) {
                                      entry.load(grid.table + first, grid.features);
                                      T product = 0;
#pragma unroll
                                      for (int f = 0; f < entry.kMost; ++f)
                                          product += gradient.values.of[f] * entry.values.of[f];
                                      for (int axis = 0; axis < kDims; ++axis)
                                          sum[axis] += weigh(ends, axis, direction) * product;
                                  });
        }
        for (int axis = 0; axis < kDims; ++axis) p.out[point * kDims + axis] = sum[axis];
    }
};

template <class T, int kDims, int kFeatures>
struct TableGradient {
    HashTableGradient<T> p;

    __device__ void operator()(int64_t i) const {
        const HashGrid<T>& grid = p.grid;
        int level;
        const int64_t point = point_of(grid, i, level);
        const T* direction = direction_at<kDims>(grid, point);
        Features<T, kFeatures> gradient;
        gradient.load(p.gradient + (point * grid.levels + level) * grid.features, grid.features);
        for_corners<T, kDims>(
            grid, point, level, [&](int64_t first, const HashEnd<T>(&ends)[kDims]) {
                gradient.add_to(p.out + first, weigh(ends, -1, direction), grid.features);
            });
    }
};

// A launch of n threads; `arrays` are those that are read or written by whole entries.
template <template <class, int, int> class Body, class T, class P>
void launch_grid(const char* what, int64_t n, const P& p, const Where& where,
                 std::initializer_list<const T*> arrays) {
    const auto with_features = [&](auto dims) {
        constexpr int kDims = decltype(dims)::value;
        if constexpr (std::is_same_v<T, float>) {
            bool aligned = true;
            for (const T* array : arrays) aligned &= reinterpret_cast<uintptr_t>(array) % 16 == 0;
            const int features = aligned ? p.grid.features : 0;
            if (features == 2) return for_each(what, n, where, Body<T, kDims, 2>{p});
            if (features == 4) return for_each(what, n, where, Body<T, kDims, 4>{p});
            if (features == 8) return for_each(what, n, where, Body<T, kDims, 8>{p});
        }
        for_each(what, n, where, Body<T, kDims, 0>{p});
    };
    p.grid.dims == 2 ? with_features(std::integral_constant<int, 2>{})
                     : with_features(std::integral_constant<int, 3>{});
}

}  // namespace

template <class T>
void launch(const HashEncoding<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    launch_grid<Encode, T>("hash_encoding", p.grid.count * p.grid.levels, p, where,
                           {p.grid.table, p.out});
}

template <class T>
void launch(const HashPointsGradient<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    launch_grid<PointsGradient, T>("hash_points_gradient", p.grid.count, p, where,
                                   {p.grid.table, p.gradient});
}

template <class T>
void launch(const HashTableGradient<T>& p, const Where& where) {
    const DeviceGuard guard(where.device);
    launch_grid<TableGradient, T>("hash_table_gradient", p.grid.count * p.grid.levels, p, where,
                                  {p.gradient, p.out});
}

SDFGAN_INSTANTIATE_LAUNCH(HashEncoding)
SDFGAN_INSTANTIATE_LAUNCH(HashPointsGradient)
SDFGAN_INSTANTIATE_LAUNCH(HashTableGradient)

}  // namespace sdfgan::cuda
