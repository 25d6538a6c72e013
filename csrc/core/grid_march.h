// Rays that step through a grid which knows the cells where a scene is empty (Mueller et al. 2022,
// arXiv:2201.05989, appendix E). Step i of a ray is at the distance d(low + i), where low is its
// first distance in steps and jitter. In a cube steps are even, d(x) = x step. In contracted space
// (mip-NeRF 360, eq. 10) they are even up to a distance, and from there on a share of the distance:
// d(x) = even exp((x step - even) / even).
//
// What one kernel counts another one writes, so both must round alike: no product is fused with a
// sum, neither here (`product`) nor by the compiler of the CPU's loops.
#pragma once

#include "core/composite.h"
#include "kernels/grid_march.h"

namespace sdfgan {

constexpr int32_t kMostSteps = 1 << 24;  // from there on float32 cannot count them

template <class T>
SDFGAN_HD T product(T a, T b) {
#ifdef __CUDA_ARCH__
    if constexpr (sizeof(T) == sizeof(float)) {
        return __fmul_rn(a, b);
    } else {
        return __dmul_rn(a, b);
    }
#else
    return a * b;
#endif
}

// A ray on its way.
template <class T>
class GridWalk {
  public:
    int32_t step;                 // the one to look at next
    T distance, delta, point[3];  // of the step that was found

    SDFGAN_METHOD GridWalk(const GridMarch<T>& march, int64_t ray)
        : march_(march),
          origin_(march.origins + 3 * ray),
          direction_(march.directions + 3 * ray),
          contracted_(march.even - march.even == 0) {
        step = march.first ? min_of(max_of(march.first[ray], 0), kMostSteps) : 0;
        low_ = steps_to(march.near[ray]) + march.jitter[ray];
        high_ = steps_to(march.far[ray]);
    }

    SDFGAN_METHOD bool ended(int32_t at) const {
        return !(at < kMostSteps && low_ + static_cast<T>(at) < high_);
    }

    // Whether a step in front of the end lies in an occupied cell; if so, it is the one found.
    SDFGAN_METHOD bool find(int32_t at) {
        const T steps = low_ + static_cast<T>(at);
        distance = distance_after(steps);
        for (int k = 0; k < 3; ++k) point[k] = origin_[k] + product(distance, direction_[k]);
        if (!march_.occupied[cell()]) return false;
        delta = distance_after(steps + 1) - distance;
        return true;
    }

    // Goes to the next step in an occupied cell; false at the ray's end.
    SDFGAN_METHOD bool advance() {
        while (!ended(step)) {
            if (find(step++)) return true;
        }
        return false;
    }

  private:
    const GridMarch<T>& march_;
    const T *origin_, *direction_;
    bool contracted_;
    T low_, high_;

    SDFGAN_METHOD T steps_to(T distance) const {
        if (!contracted_) return distance / march_.step;
        const T grown = std::log(max_of(distance / march_.even, T(1)));
        return (min_of(distance, march_.even) + product(march_.even, grown)) / march_.step;
    }

    SDFGAN_METHOD T distance_after(T steps) const {
        const T path = product(steps, march_.step);
        if (!contracted_ || path <= march_.even) return path;
        return product(march_.even, std::exp((path - march_.even) / march_.even));
    }

    SDFGAN_METHOD int64_t cell() const {
        const T n = static_cast<T>(march_.resolution);
        T scale = 1;
        if (contracted_) {
            const T square = product(point[0], point[0]) + product(point[1], point[1]) +
                             product(point[2], point[2]);
            const T length = max_of(std::sqrt(square), T(1));
            scale = (2 - 1 / length) / length / 2;
        }
        int64_t index = 0;
        for (int k = 0; k < 3; ++k) {
            const T at = product(product(point[k], scale) + 1, n / 2);
            index = index * march_.resolution +
                    static_cast<int64_t>(at >= 0 ? min_of(at, n - 1) : 0);  // NaN: 0
        }
        return index;
    }
};

template <class T>
SDFGAN_HD void march_count_ray(const MarchCount<T>& p, int64_t ray) {
    GridWalk<T> walk(p.march, ray);
    int64_t count = 0;
    while (count < p.most && walk.advance()) ++count;
    if (ray == 0) p.counts[0] = 0;
    p.counts[ray + 1] = count;
    p.next[ray] = walk.step;
}

// Sample i of a ray, from the step that was found; a sample beyond the last step has no length.
template <class T>
SDFGAN_HD void write_march_sample(const MarchSamples<T>& p, int64_t ray, int64_t i, bool found,
                                  const GridWalk<T>& walk) {
    for (int k = 0; k < 3; ++k) {
        p.points[3 * i + k] = found ? walk.point[k] : p.march.origins[3 * ray + k];
        p.directions[3 * i + k] = p.march.directions[3 * ray + k];
    }
    p.distances[i] = found ? walk.distance : 0;
    p.deltas[i] = found ? walk.delta : 0;
}

template <class T>
SDFGAN_HD void march_samples_ray(const MarchSamples<T>& p, int64_t ray) {
    GridWalk<T> walk(p.march, ray);
    int64_t begin, end;
    range_of_ray(p.at, ray, begin, end);
    for (int64_t i = begin; i < end; ++i) {
        const bool found = walk.advance();
        write_march_sample(p, ray, i, found, walk);
    }
}

// Light reaches the samples in front of which the optical depth is below the limit: those up to one
// of them. A density that is NaN ends its ray.
template <class T>
SDFGAN_HD void march_reached_ray(const MarchReached<T>& p, int64_t ray) {
    int64_t begin, end;
    range_of_ray(p.at, ray, begin, end);
    T depth = p.depth[ray];
    int64_t i = begin;
    for (; i < end && depth < p.limit; ++i) depth += product(p.densities[i], p.deltas[i]);
    p.depth[ray] = depth;
    p.reached[ray + 1] += i - begin;
    if (!(depth < p.limit)) p.next[ray] = kMostSteps;
}

}  // namespace sdfgan
