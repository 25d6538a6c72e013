// Multiresolution hash grids; core/hash.h has the maths.
#pragma once

#include <cstdint>

#include "kernels/fields.h"

namespace sdfgan {

constexpr int kMostHashLevels = 32;

// A multiresolution hash grid at many points; see core/hash.h.
template <class T>
struct HashGrid {
    const T* points;     // [count, dims]
    const T* table;      // [begin[levels], features]; unused by HashTableGradient
    const T* direction;  // [count, dims]: derivatives along it take the place of values; or null
    int64_t count;
    int dims;      // 2 or 3
    int features;  // of a level: 1, 2, 4 or 8
    int levels;
    bool smooth;                         // weights with a continuous slope, else linear ones
    uint32_t cells[kMostHashLevels];     // along an axis
    uint32_t mask[kMostHashLevels];      // entries - 1 of a level that is hashed, else 0
    int64_t begin[kMostHashLevels + 1];  // a level's first entry

    SDFGAN_FIELDS(points, table, direction, count, dims, features, levels, smooth, cells, mask,
                  begin)
};

// Features at the points.
template <class T>
struct HashEncoding {
    HashGrid<T> grid;
    T* out;  // [count, levels * features]

    SDFGAN_FIELDS(grid, out)
};

// What a gradient by the features means for the points.
template <class T>
struct HashPointsGradient {
    HashGrid<T> grid;
    const T* gradient;  // [count, levels * features]
    T* out;             // [count, dims]

    SDFGAN_FIELDS(grid, gradient, out)
};

// What it means for the table.
template <class T>
struct HashTableGradient {
    HashGrid<T> grid;
    const T* gradient;  // [count, levels * features]
    T* out;             // like the table; added to

    SDFGAN_FIELDS(grid, gradient, out)
};

}  // namespace sdfgan
