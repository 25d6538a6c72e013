// One evaluation of a marching ray: what the tracers on every device do with a field's answer.
//
// Sphere tracing (Hart 1996) with over-long steps: the slope between the last two samples predicts
// where a locally flat field would be touched next (Balint and Valasek 2018); that the spheres of
// both samples overlap proves that nothing was skipped, otherwise the ray goes back (Keinert et al.
// 2014). Close to the surface steps are secants.
#pragma once

#include "core/common.h"
#include "kernels/fields.h"

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
    T footprint;          // side of a pixel per unit of distance, where layers are collected

    SDFGAN_FIELDS(threshold, cone_slope, inverse_lipschitz, relaxation, slack, refine, footprint)
};

template <class T>
struct RayState {
    T t, far;
    T nearest, nearest_t;  // smallest value of the traced function (of the sdf, where a level set
                           // inside the surface is traced), and where
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

constexpr double kBand =
    1.1;  // pixels: minima within are layers; an edge is .71, the rest is doubt
constexpr double kProminence =
    0.25;  // pixels: what rises less after a minimum belongs to its layer
constexpr double kFar = 1.25;
constexpr double kFarAway = 1e10;

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

// Where a level set inside the surface is traced, spheres that but touch can hide a part of the
// solid between them which is too thin to hold that level set: twice its depth. Samples that are
// farther than kFar times that from the surface must have spheres that overlap by so much.
template <class T>
SDFGAN_HD T thickness(T t, const MarchRules<T>& rules) {
    return max_of(T(-2) * rules.cone_slope * t * rules.inverse_lipschitz, T(0));
}

// No surface was met: a NaN without its header.
template <class T>
SDFGAN_HD T no_surface() {
    return T(NAN);
}

}  // namespace march_detail

// A layer: a local minimum of the sdf along a ray that nowhere gets as deep as the traced
// function's threshold, and so may cover its pixel in part.
template <class T>
struct Layer {
    T t;        // estimate of where it is
    T nearest;  // estimate of the sdf there
    T reach;    // it is at most so far from t
    T enter;    // where the ray enters the surface before it; NaN: no sample was inside
};

// What is known of a layer before its end. The ray's nearest sample is the smallest one in it.
template <class T>
struct OpenLayer {
    T before, before_t;  // sdf at the sample before the nearest; before_t = nearest_t: none
    T after, after_t;    // likewise after it
    T enter;
};

// A march that collects no layers: the nearest sample is that of the whole ray.
struct NoLayers {
    template <class T>
    SDFGAN_METHOD bool take(RayState<T>& ray, T sdf, T value, const MarchRules<T>& rules) const {
        const T size = rules.cone_slope < 0 ? sdf : value;
        if (size < ray.nearest) {
            ray.nearest = size;
            ray.nearest_t = ray.t;
        }
        return true;
    }
    SDFGAN_METHOD bool entered() const { return false; }
    template <class T>
    SDFGAN_METHOD bool enter(RayState<T>&, T, const MarchRules<T>&) const {
        return false;
    }
    template <class T>
    SDFGAN_METHOD void finish(RayState<T>&, const MarchRules<T>&) const {}
};

// Collects the layers of a ray, front to back.
template <class T>
struct Layers {
    OpenLayer<T>& open;
    uint8_t& count;  // of those that are complete
    int most;
    T* out;  // element e of layer l is out[(4 l + e) stride]
    int64_t stride;

    static SDFGAN_METHOD OpenLayer<T> none() { return {0, 0, 0, 0, march_detail::no_surface<T>()}; }

    // Takes the sample at ray.t; false: the ray has all the layers that it may have. Minima are
    // those of the sdf: the traced function rises with t, and by a large bound of the slope faster
    // than the sdf falls.
    SDFGAN_METHOD bool take(RayState<T>& ray, T sdf, T, const MarchRules<T>& rules) const {
        using namespace march_detail;
        const bool first = !(ray.last_step > 0);
        const T before_t = ray.t - ray.last_step;
        const T before = ray.last_value + rules.cone_slope * before_t;  // the sdf there
        const bool inside_a_layer = ray.nearest < T(kFarAway);
        if (sdf < ray.nearest && (inside_a_layer || first || sdf < before)) {
            open.before = first ? sdf : before;
            open.before_t = first ? ray.t : before_t;
            ray.nearest = sdf;
            ray.nearest_t = open.after_t = ray.t;
        } else if (inside_a_layer && open.after_t == ray.nearest_t) {
            open.after = sdf;
            open.after_t = ray.t;
        }
        if (sdf <= 0 && open.enter != open.enter) {
            const bool crossed = !first && before > 0;
            open.enter = crossed ? before_t + ray.last_step * before / (before - sdf) : ray.t;
        }
        const T rise = T(kProminence) * rules.footprint * ray.t;
        if (sdf > 0 && inside_a_layer && sdf > ray.nearest + rise) finish(ray, rules);
        return count < most;
    }

    SDFGAN_METHOD bool entered() const { return open.enter == open.enter; }

    // Moves a ray that is deep inside back to where it entered; whether that is to be refined.
    SDFGAN_METHOD bool enter(RayState<T>& ray, T sdf, const MarchRules<T>& rules) const {
        using namespace march_detail;
        const T back = ray.t - open.enter, way = back - ray.last_step;
        // If the sample before was inside as well, the slope since then tells where the entry is if
        // nothing bends; otherwise the entry is at most so far from the nearer of both samples: there
        // may be a crease between them.
        const T before = ray.last_value + rules.cone_slope * (ray.t - ray.last_step);
        const T fall = before - sdf;
        const T doubt = way > 0 ? std::fabs(way * fall + before * ray.last_step)
                                : min_of(back, -way) * fall;
        const bool exact = !(ray.last_step > 0) || rules.refine <= 0 ||
                           doubt <= ray.last_step * rules.threshold;
        ray.t = open.enter;
        ray.last_value = sdf;
        ray.last_step = -back;
        ray.status = static_cast<uint8_t>(exact ? int{kHit} : kRefining + rules.refine);
        return !exact;
    }

    // Ends the layer, which counts if its minimum is near: that of the parabola through the nearest
    // sample and those beside it.
    SDFGAN_METHOD void finish(RayState<T>& ray, const MarchRules<T>& rules) const {
        using namespace march_detail;
        if (ray.nearest < T(kFarAway) && count < most) {
            T t = ray.nearest_t, nearest = ray.nearest;
            const T left = t - open.before_t, right = open.after_t - t;
            T reach = max_of(left, right);
            if (left > 0 && right > 0) {
                const T fall = (open.before - nearest) / left,
                        rise = (open.after - nearest) / right;
                const T bend = (fall + rise) / (left + right);
                const T moved =
                    bend > 0 ? (fall * right - rise * left) / (2 * bend * (left + right)) : T(0);
                t += moved;
                nearest -= bend * moved * moved;
                reach = max_of(left + moved, right - moved);
            }
            const T pixel = rules.footprint * t / rules.inverse_lipschitz;
            if (nearest < T(kBand) * pixel) {
                T* const layer = out + 4 * count * stride;
                layer[0] = t;
                layer[stride] = nearest;
                layer[2 * stride] = reach;
                layer[3 * stride] = open.enter;
                ++count;
            }
        }
        ray.nearest = T(kFarAway);
        open = none();
    }
};

// Takes sdf(ray.t); returns whether the ray goes on, at the new ray.t.
template <class T, class Collector>
SDFGAN_HD bool advance(RayState<T>& ray, T sdf, const MarchRules<T>& rules,
                       const Collector& layers) {
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
    const T thin = thickness(ray.t, rules);
    const T overlap = min_of(last_safe, seen) > T(kFar) * thin ? thin : T(0);
    if (ray.last_step > max_of(last_safe, T(0)) &&
        ray.last_step - last_safe - seen + overlap > rules.slack) {
        ray.t -= ray.last_step - last_safe;
        ray.last_step = last_safe;
        return true;
    }
    if (!layers.take(ray, sdf, value, rules)) {
        ray.status = kLeft;
        return false;
    }
    const T slope = ray.last_step > 0 ? (ray.last_value - value) / ray.last_step
                                      : ray.last_value + rules.cone_slope;
    if (value <= rules.threshold) {
        if (layers.entered()) return layers.enter(ray, sdf, rules);
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
    if (predicted > T(kFar) * thin) step = max_of(safe, step - thin);
    if (slope > T(kSecantSlope) && value / slope - safe <= rules.slack) {
        step = max_of(step, value / slope);
    } else {
        step = max_of(step, rules.slack);
    }
    if (ray.t + step >= ray.far) step = safe;  // nothing past the end would prove the step
    const T next = ray.t + step;
    if (!(next < ray.far)) {
        layers.finish(ray, rules);
        ray.t = ray.far;
        ray.status = kLeft;
        return false;
    }
    ray.last_value = value;
    ray.last_step = step;
    ray.t = next;
    return true;
}

template <class T>
SDFGAN_HD bool advance(RayState<T>& ray, T sdf, const MarchRules<T>& rules) {
    return advance(ray, sdf, rules, NoLayers());
}

// Whether the pixel of a ray that has ended is split, and what its finer rays start with.
template <class T>
struct Split {
    bool split;
    T start, slope;
};

// By dfr's rule if reach > 0; see TraceLevel.
template <class T>
SDFGAN_HD Split<T> split_pixel(const RayState<T>& ray, T reach) {
    if (reach > 0) {
        const T bound = reach * ray.nearest_t;
        const bool near = ray.nearest <= std::sqrt(bound * bound / 2 + T(1) / 1024);
        return {near && ray.status != kUntraced, 0, 1};
    }
    const bool split = ray.status == kHit || ray.status == kMarching;
    // A cone that ran out of evaluations is clear up to the last of them, not to where it would go.
    return {split, ray.t - ray.last_step, ray.last_step == 0 ? ray.last_value : 1};
}

}  // namespace sdfgan
