// One evaluation of a marching ray: what the tracers on every device do with a field's answer.
//
// Sphere tracing (Hart 1996) with over-long steps: the slope between the last two samples predicts
// where a locally flat field would be touched next (Balint and Valasek 2018); that the spheres of
// both samples overlap proves that nothing was skipped, otherwise the ray goes back (Keinert et al.
// 2014). Close to the surface steps are secants.
#pragma once

#include "core/common.h"

namespace sdfgan {

// The same numbers as sdfgan.ops.RayStatus. A ray that refines its hit has kRefining + the number
// of evaluations left for that.
enum RayStatus : uint8_t {
    kMarching = 0,
    kHit = 1,
    kLeft = 2,
    kInvalid = 3,
    kRefining = 8,
    kUntraced = 255,  // no ray: its pixel was not split, or it misses the ball
};

template <class T>
struct MarchRules {
    T threshold;          // a hit: the traced function is not above it
    T cone_slope;         // the traced function is sdf - cone_slope * t; positive: a cone
    T inverse_lipschitz;  // 1 / the largest |gradient| of the sdf
    T relaxation;         // of the predicted part of a step: 0 marches plainly, 1 trusts it
    T slack;              // what may lie unseen between two samples (world units)
    int refine;           // most evaluations that move a hit onto the surface; < 0: leave it there
};

template <class T>
struct RayState {
    T t, far;
    T nearest, nearest_t;  // smallest value of the traced function, and where
    T last_value;          // of the sample before, which was last_step before this one
    T last_step;  // 0: there is none, and last_value is a guess of the slope of -sdf along t
    uint8_t status;
};

namespace march_detail {

constexpr double kBend = 0.1;  // twice the radius of surfaces on which secants are that exact
constexpr double kLeastSlope = 0.01;  // of the sdf at a hit, as a share of the Lipschitz bound
constexpr double kLongestCorrection = 0.05;  // world units: a grazing ray is not thrown far
constexpr double kSecantSlope = 0.05;        // from here on secants point at the surface
constexpr double kLongestPrediction = 0.5;   // world units beyond the safe step

// Moves a hit by one secant step; `sdf` was found at ray.t, and `slope` is that of -sdf along t.
template <class T>
SDFGAN_HD bool correct_hit(RayState<T>& ray, T sdf, T slope, int evaluations_left,
                           const MarchRules<T>& rules) {
    const T steepest = 1 / rules.inverse_lipschitz;
    slope = min_of(max_of(slope, T(kLeastSlope) * steepest), steepest);
    const T limit = T(kLongestCorrection);
    const T correction = min_of(max_of(sdf / slope, -limit), limit);
    const T size = std::fabs(correction);
    // The error of a secant is size * reach / (bend * slope).
    const T reach = std::fabs(ray.last_step) + size;
    const bool done = evaluations_left <= 0 || size * reach <= T(kBend) * slope * rules.threshold;
    ray.t += correction;
    ray.last_value = sdf;
    ray.last_step = correction;
    ray.status = static_cast<uint8_t>(done ? int{kHit} : kRefining + evaluations_left);
    return !done;
}

}  // namespace march_detail

// Takes sdf(ray.t); returns whether the ray goes on, at the new ray.t.
template <class T>
SDFGAN_HD bool advance(RayState<T>& ray, T sdf, const MarchRules<T>& rules) {
    using namespace march_detail;
    if (sdf != sdf) {
        ray.status = kInvalid;
        return false;
    }
    if (ray.status >= kRefining) {
        const T slope = ray.last_step == 0 ? 0 : (ray.last_value - sdf) / ray.last_step;
        return correct_hit(ray, sdf, slope, ray.status - kRefining - 1, rules);
    }
    const T value = sdf - rules.cone_slope * ray.t;
    const T safe = value * rules.inverse_lipschitz;
    const T last_safe = ray.last_value * rules.inverse_lipschitz;
    // A ball around the sample is all outside or all inside; a cone that touches has seen nothing.
    const T seen = rules.cone_slope > 0 ? max_of(safe, T(0)) : std::fabs(safe);
    if (ray.last_step > max_of(last_safe, T(0)) && ray.last_step - last_safe - seen > rules.slack) {
        ray.t -= ray.last_step - last_safe;
        ray.last_step = last_safe;
        return true;
    }
    if (value < ray.nearest) {
        ray.nearest = value;
        ray.nearest_t = ray.t;
    }
    const T slope = ray.last_step > 0 ? (ray.last_value - value) / ray.last_step
                                      : ray.last_value + rules.cone_slope;
    if (value <= rules.threshold) {
        if (rules.refine >= 0) {
            return correct_hit(ray, sdf, slope - rules.cone_slope, rules.refine, rules);
        }
        ray.status = kHit;
        ray.last_value = slope - rules.cone_slope;  // for the finer rays to start with
        ray.last_step = 0;
        if (rules.cone_slope > 0) ray.t += max_of(safe, T(0));  // the cone is clear up to there
        return false;
    }
    const T m = min_of(max_of(slope * rules.inverse_lipschitz, T(-0.8)), T(1));
    const T predicted = rules.relaxation * safe * (1 - m) / (1 + m);
    T step = safe + min_of(predicted, T(kLongestPrediction));
    if (slope > T(kSecantSlope) && value / slope - safe <= rules.slack) {
        step = max_of(step, value / slope);
    } else {
        step = max_of(step, rules.slack);
    }
    if (ray.t + step >= ray.far) step = safe;  // nothing past the end would prove the step
    const T next = ray.t + step;
    if (!(next < ray.far)) {
        ray.t = ray.far;
        ray.status = kLeft;
        return false;
    }
    ray.last_value = value;
    ray.last_step = step;
    ray.t = next;
    return true;
}

// Whether the pixel of a ray that has ended is split, and what its finer rays start with.
template <class T>
struct Split {
    bool split;
    T start, slope;
};

// By the seed's rule if reach > 0; see TraceLevel.
template <class T>
SDFGAN_HD Split<T> split_pixel(const RayState<T>& ray, T reach) {
    if (reach > 0) {
        const T bound = reach * ray.nearest_t;
        const bool near = ray.nearest <= std::sqrt(bound * bound / 2 + T(1) / 1024);
        return {near && ray.status != kUntraced, 0, 1};
    }
    const bool split = ray.status == kHit || ray.status == kMarching;
    return {split, ray.t, ray.last_step == 0 ? ray.last_value : 1};
}

}  // namespace sdfgan
