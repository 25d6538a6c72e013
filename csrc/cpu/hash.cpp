// Multiresolution hash grids (core/hash.h). A tile of points goes through one level at a time:
// first where its corners' features are and what they weigh, one point per lane; then the features
// themselves, one point after the other, with those of a corner in the lanes. Those of a hashed
// level are fetched while the level before is added up.
#include "core/hash.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

constexpr int kPoints = 32;  // of a tile

// The corners of a tile's cells on one level, with `kParts` weights each.
template <class T, int kDims, int kParts>
struct Corners {
    static constexpr int kCount = 1 << kDims;
    alignas(64) uint32_t index[kCount][kPoints];
    alignas(64) T weight[kParts][kCount][kPoints];
};

// Weights of values (kParts = 1) or their derivatives by each coordinate (kParts = kDims).
template <class T, int kDims, int kParts, bool kDirection>
void find_corners(const HashGrid<T>& grid, int level, int64_t begin, int count,
                  Corners<T, kDims, kParts>& corners) {
    alignas(64) T point[kDims][kPoints] = {}, direction[kDims][kPoints] = {};
    for (int i = 0; i < count; ++i) {
        for (int axis = 0; axis < kDims; ++axis) {
            point[axis][i] = grid.points[(begin + i) * kDims + axis];
            if (kDirection) direction[axis][i] = grid.direction[(begin + i) * kDims + axis];
        }
    }
    const uint32_t side = grid.cells[level] + 2, mask = grid.mask[level];
    const T cells = static_cast<T>(grid.cells[level]);
    const bool smooth = grid.smooth;
    alignas(64) uint32_t cell[kDims][kPoints];
    alignas(64) T ends[kDims][2][3][kPoints];
    for (int axis = 0; axis < kDims; ++axis) {
#pragma omp simd
        for (int i = 0; i < kPoints; ++i) {
            const HashAxis<T> found = hash_axis(point[axis][i], cells, smooth);
            cell[axis][i] = found.cell;
            for (int end = 0; end < 2; ++end) {
                for (int order = 0; order < 3; ++order) {
                    ends[axis][end][order][i] = found.end[end].weight[order];
                }
            }
        }
    }
    for (int corner = 0; corner < Corners<T, kDims, kParts>::kCount; ++corner) {
        uint32_t* index = corners.index[corner];
#pragma omp simd
        for (int i = 0; i < kPoints; ++i) {
            uint32_t at[kDims];
            for (int axis = 0; axis < kDims; ++axis)
                at[axis] = cell[axis][i] + hash_bit(corner, axis);
            index[i] = hash_index(at, side, mask);
        }
        for (int part = 0; part < kParts; ++part) {
            const T* by[kDims][2];
            for (int axis = 0; axis < kDims; ++axis) {
                const bool here = kParts == kDims && axis == part;
                for (int order = 0; order < 2; ++order) {
                    by[axis][order] = ends[axis][hash_bit(corner, axis)][order + here];
                }
            }
            T* weight = corners.weight[part][corner];
#pragma omp simd
            for (int i = 0; i < kPoints; ++i) {
                T value[kDims], slope[kDims], along[kDims];
                for (int axis = 0; axis < kDims; ++axis) {
                    value[axis] = by[axis][0][i];
                    slope[axis] = by[axis][1][i];
                    along[axis] = direction[axis][i];
                }
                weight[i] =
                    kDirection ? hash_weight_along(value, slope, along) : hash_weight(value);
            }
        }
    }
}

template <class T, int kDims, int kParts>
void find_corners(const HashGrid<T>& grid, int level, int64_t begin, int count,
                  Corners<T, kDims, kParts>& corners) {
    if (grid.direction) {
        find_corners<T, kDims, kParts, true>(grid, level, begin, count, corners);
    } else {
        find_corners<T, kDims, kParts, false>(grid, level, begin, count, corners);
    }
}

// Calls body(begin, count) for each tile of the points [begin, end).
template <class Body>
void for_tiles(int64_t begin, int64_t end, const Body& body) {
    for (; begin < end; begin += kPoints) {
        body(begin, static_cast<int>(min_of<int64_t>(kPoints, end - begin)));
    }
}

// Every other corner: along x, the two ends of a cell are mostly in one line of the cache.
template <class T, int kDims>
void prefetch(const T* table, int features, const Corners<T, kDims, 1>& corners) {
    for (int corner = 0; corner < 1 << kDims; corner += 2) {
        for (const uint32_t index : corners.index[corner]) {
            __builtin_prefetch(table + static_cast<int64_t>(index) * features);
        }
    }
}

template <class T, int kDims, int kFeatures>
void encode(const HashEncoding<T>& p, int64_t begin, int64_t end) {
    const HashGrid<T>& grid = p.grid;
    const int64_t width = static_cast<int64_t>(grid.levels) * kFeatures;
    Corners<T, kDims, 1> alternating[2];  // of a level, and of the next one
    for_tiles(begin, end, [&](int64_t first, int count) {
        const auto find = [&](int level) {
            Corners<T, kDims, 1>& corners = alternating[level & 1];
            find_corners(grid, level, first, count, corners);
            if (grid.mask[level]) {
                prefetch(grid.table + grid.begin[level] * kFeatures, kFeatures, corners);
            }
        };
        if (grid.levels > 0) find(0);
        for (int level = 0; level < grid.levels; ++level) {
            if (level + 1 < grid.levels) find(level + 1);
            const Corners<T, kDims, 1>& corners = alternating[level & 1];
            const T* table = grid.table + grid.begin[level] * kFeatures;
            for (int i = 0; i < count; ++i) {
                T sum[kFeatures] = {};
                for (int corner = 0; corner < 1 << kDims; ++corner) {
                    const T* feature =
                        table + static_cast<int64_t>(corners.index[corner][i]) * kFeatures;
                    const T weight = corners.weight[0][corner][i];
                    for (int f = 0; f < kFeatures; ++f) sum[f] += weight * feature[f];
                }
                T* out = p.out + (first + i) * width + level * kFeatures;
                for (int f = 0; f < kFeatures; ++f) out[f] = sum[f];
            }
        }
    });
}

template <class T, int kDims, int kFeatures>
void points_gradient(const HashPointsGradient<T>& p, int64_t begin, int64_t end) {
    const HashGrid<T>& grid = p.grid;
    const int64_t width = static_cast<int64_t>(grid.levels) * kFeatures;
    Corners<T, kDims, kDims> corners;
    for_tiles(begin, end, [&](int64_t first, int count) {
        T sum[kDims][kPoints] = {};
        for (int level = 0; level < grid.levels; ++level) {
            find_corners(grid, level, first, count, corners);
            const T* table = grid.table + grid.begin[level] * kFeatures;
            for (int i = 0; i < count; ++i) {
                const T* gradient = p.gradient + (first + i) * width + level * kFeatures;
                for (int corner = 0; corner < 1 << kDims; ++corner) {
                    const T* feature =
                        table + static_cast<int64_t>(corners.index[corner][i]) * kFeatures;
                    T product = 0;
                    for (int f = 0; f < kFeatures; ++f) product += gradient[f] * feature[f];
                    for (int axis = 0; axis < kDims; ++axis) {
                        sum[axis][i] += corners.weight[axis][corner][i] * product;
                    }
                }
            }
        }
        for (int i = 0; i < count; ++i) {
            for (int axis = 0; axis < kDims; ++axis)
                p.out[(first + i) * kDims + axis] = sum[axis][i];
        }
    });
}

template <class T, int kDims, int kFeatures>
void table_gradient(const HashTableGradient<T>& p, int64_t begin, int64_t end) {
    const HashGrid<T>& grid = p.grid;
    const int64_t width = static_cast<int64_t>(grid.levels) * kFeatures;
    Corners<T, kDims, 1> corners;
    for (int level = static_cast<int>(begin); level < end; ++level) {
        T* table = p.out + grid.begin[level] * kFeatures;
        for_tiles(0, grid.count, [&](int64_t first, int count) {
            find_corners(grid, level, first, count, corners);
            for (int i = 0; i < count; ++i) {
                const T* gradient = p.gradient + (first + i) * width + level * kFeatures;
                for (int corner = 0; corner < 1 << kDims; ++corner) {
                    T* feature = table + static_cast<int64_t>(corners.index[corner][i]) * kFeatures;
                    const T weight = corners.weight[0][corner][i];
                    for (int f = 0; f < kFeatures; ++f) feature[f] += weight * gradient[f];
                }
            }
        });
    }
}

template <int kValue>
struct Constant {
    static constexpr int value = kValue;
};

// function(dims, features) with those of the grid as types.
template <class T, class Function>
void for_grid(const HashGrid<T>& grid, const Function& function) {
    const auto with = [&](auto dims) {
        switch (grid.features) {
            case 1:
                return function(dims, Constant<1>{});
            case 2:
                return function(dims, Constant<2>{});
            case 4:
                return function(dims, Constant<4>{});
            default:
                return function(dims, Constant<8>{});
        }
    };
    grid.dims == 2 ? with(Constant<2>{}) : with(Constant<3>{});
}

template <class T>
void hash_encoding(const HashEncoding<T>& p, int64_t begin, int64_t end) {
    for_grid(p.grid, [&](auto dims, auto features) {
        encode<T, decltype(dims)::value, decltype(features)::value>(p, begin, end);
    });
}

template <class T>
void hash_points_gradient(const HashPointsGradient<T>& p, int64_t begin, int64_t end) {
    for_grid(p.grid, [&](auto dims, auto features) {
        points_gradient<T, decltype(dims)::value, decltype(features)::value>(p, begin, end);
    });
}

template <class T>
void hash_table_gradient(const HashTableGradient<T>& p, int64_t begin, int64_t end) {
    for_grid(p.grid, [&](auto dims, auto features) {
        table_gradient<T, decltype(dims)::value, decltype(features)::value>(p, begin, end);
    });
}

}  // namespace

SDFGAN_LOOP(hash_encoding, HashEncoding)
SDFGAN_LOOP(hash_points_gradient, HashPointsGradient)
SDFGAN_LOOP(hash_table_gradient, HashTableGradient)

}  // namespace sdfgan::cpu
