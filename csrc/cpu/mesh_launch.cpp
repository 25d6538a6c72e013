// Splits the points of a MeshDistance over threads, neighbours in space together; and rays.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

constexpr int64_t kSlab = 1 << 22;  // points that are sorted together: bounds the memory
constexpr int kBits = 10, kBuckets = 1 << kBits;  // of a coordinate, and of a pass of the sort

struct Key {
    uint32_t code;
    int32_t point;
};

uint32_t spread(uint32_t x) {  // two zeros before each of ten bits
    x = (x | x << 16) & 0x030000ff;
    x = (x | x << 8) & 0x0300f00f;
    x = (x | x << 4) & 0x030c30c3;
    return (x | x << 2) & 0x09249249;
}

// Numbers of `count` points along a Morton curve through their box, as sorted keys.
void sort_along_curve(const float* points, int64_t count, int threads, std::vector<Key>& keys,
                      std::vector<Key>& spare) {
    float low[3] = {INFINITY, INFINITY, INFINITY}, scale[3];
    for (int k = 0; k < 3; ++k) {
        float high = -INFINITY;
        for (int64_t i = 0; i < count; ++i) {
            const float x = points[3 * i + k];
            if (!std::isfinite(x)) continue;
            low[k] = std::min(low[k], x);
            high = std::max(high, x);
        }
        scale[k] = high > low[k] ? (kBuckets - 1) / (high - low[k]) : 0;
    }
    parallel_for(count, 8192, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            uint32_t code = 0;
            for (int k = 0; k < 3; ++k) {
                const float cell = (points[3 * i + k] - low[k]) * scale[k];
                // The comparison is false for NaN.
                const float inside = cell > 0 ? std::min<float>(cell, kBuckets - 1) : 0;
                code |= spread(static_cast<uint32_t>(inside)) << k;
            }
            keys[i] = {code, static_cast<int32_t>(i)};
        }
    });
    for (int shift = 0; shift < 3 * kBits; shift += kBits) {
        int64_t first[kBuckets + 1] = {};
        const auto bucket = [&](const Key& key) { return key.code >> shift & (kBuckets - 1); };
        for (int64_t i = 0; i < count; ++i) ++first[bucket(keys[i]) + 1];
        for (int b = 0; b < kBuckets; ++b) first[b + 1] += first[b];
        for (int64_t i = 0; i < count; ++i) spare[first[bucket(keys[i])]++] = keys[i];
        keys.swap(spare);
    }
}

}  // namespace

void launch(const MeshDistance& p, const Where& where) {
    std::vector<Key> keys(std::min(p.count, kSlab)), spare(keys.size());
    std::vector<int32_t> order(keys.size());
    for (int64_t start = 0; start < p.count; start += kSlab) {
        MeshDistance slab = p;
        slab.count = std::min(kSlab, p.count - start);
        slab.points += 3 * start;
        slab.distance += start;
        slab.face += start;
        slab.closest += 3 * start;
        slab.winding += start;
        sort_along_curve(slab.points, slab.count, where.threads, keys, spare);
        for (int64_t i = 0; i < slab.count; ++i) order[i] = keys[i].point;
        // Points differ in work: threads take the next piece when they are done with one. Each
        // piece begins without a guess, so that the result does not depend on who takes it.
        std::atomic<int64_t> next{0};
        const int64_t pieces = (slab.count + kMeshPiece - 1) / kMeshPiece;
        run_threads(
            static_cast<int>(std::min<int64_t>(pieces, where.threads)), [](int) {},
            [&] {
                for (int64_t i; (i = next.fetch_add(1)) < pieces;) {
                    table().mesh_distance(slab, order.data(), i * kMeshPiece,
                                          std::min((i + 1) * kMeshPiece, slab.count));
                }
            });
    }
}

// Rays differ in work as points do.
void launch(const MeshRaycast& p, const Where& where) {
    std::atomic<int64_t> next{0};
    const int64_t pieces = (p.count + kMeshPiece - 1) / kMeshPiece;
    run_threads(static_cast<int>(std::min<int64_t>(pieces, where.threads)), [](int) {}, [&] {
        for (int64_t i; (i = next.fetch_add(1)) < pieces;) {
            table().mesh_raycast(p, i * kMeshPiece, std::min((i + 1) * kMeshPiece, p.count));
        }
    });
}

}  // namespace sdfgan::cpu
