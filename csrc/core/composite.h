// Emission and absorption along one ray (Max 1995; Mildenhall et al. 2020, eq. 3): sample i lets
// the share 1 - a_i through, and P_i = prod_{j<i} (1 - a_j) reaches it; its weight is a_i P_i.
#pragma once

#include "core/exponential.h"
#include "kernels.h"

namespace sdfgan {

SDFGAN_HD void range_of_ray(const RaySamples& at, int64_t ray, int64_t& begin, int64_t& end) {
    begin = ray * at.samples, end = begin + at.samples;
    if (!at.offsets) return;
    const int64_t none = 0;  // whatever the offsets hold, nothing outside the samples is touched
    begin = min_of(max_of(at.offsets[ray], none), at.samples);
    end = min_of(max_of(at.offsets[ray + 1], begin), at.samples);
}

// a_i of the samples of a ray. A density of zero is transparent over any length.
template <class T>
SDFGAN_HD void opacities(const T* densities, const T* deltas, T* out, int64_t begin, int64_t end) {
    if (!deltas) {
        for (int64_t i = begin; i < end; ++i) out[i] = densities[i];
        return;
    }
    for (int64_t i = begin; i < end; ++i) {
        const T thickness = one_minus_exp(densities[i] * deltas[i]);
        out[i] = densities[i] == 0 ? 0 : thickness;
    }
}

template <class T>
SDFGAN_HD void composite_ray(const Composite<T>& p, int64_t ray) {
    int64_t begin, end;
    range_of_ray(p.at, ray, begin, end);
    opacities(p.densities, p.deltas, p.weights, begin, end);
    T passes = 1, opacity = 0, depth = 0;
    T* out = p.out + ray * p.channels;
    for (int64_t c = 0; c < p.channels; ++c) out[c] = 0;
    for (int64_t i = begin; i < end; ++i) {
        const T alpha = p.weights[i], weight = alpha * passes;
        p.weights[i] = weight;
        passes *= 1 - alpha;
        opacity += weight;
        if (p.distances) depth += weight * p.distances[i];
        for (int64_t c = 0; c < p.channels; ++c) out[c] += weight * p.colors[i * p.channels + c];
    }
    p.opacity[ray] = opacity;
    if (p.depth) p.depth[ray] = depth;
}

// With g_i the gradient by weight i, and what arrives from behind sample i per unit of light,
// B_i = a_{i+1} g_{i+1} + (1 - a_{i+1}) B_{i+1}:  dL/da_i = P_i (g_i - B_i). By the thickness
// x = density delta it is that times 1 - a_i. No division by 1 - a, so opaque samples are exact.
template <class T>
SDFGAN_HD void composite_ray_backward(const CompositeBackward<T>& p, int64_t ray) {
    int64_t begin, end;
    range_of_ray(p.at, ray, begin, end);
    T* reaches = p.grad_densities;  // P_i until the gradient replaces it
    opacities(p.densities, p.deltas, reaches, begin, end);
    T passes = 1;
    for (int64_t i = begin; i < end; ++i) {
        const T alpha = reaches[i];
        reaches[i] = passes;
        passes *= 1 - alpha;
    }
    const T grad_opacity = p.grad_opacity ? p.grad_opacity[ray] : 0;
    const T grad_depth = p.grad_depth ? p.grad_depth[ray] : 0;
    const T* grad_out = p.grad_out ? p.grad_out + ray * p.channels : nullptr;
    T behind = 0;
    for (int64_t i = end; i-- > begin;) {
        const T weight = p.weights[i], reach = reaches[i];
        T g = grad_opacity;
        if (p.grad_weights) g += p.grad_weights[i];
        if (p.grad_depth) g += grad_depth * p.distances[i];
        if (p.grad_distances) p.grad_distances[i] = weight * grad_depth;
        if (grad_out) {
            const T* color = p.colors + i * p.channels;
            for (int64_t c = 0; c < p.channels; ++c) g += grad_out[c] * color[c];
        }
        if (p.grad_colors) {
            T* target = p.grad_colors + i * p.channels;
            for (int64_t c = 0; c < p.channels; ++c)
                target[c] = grad_out ? weight * grad_out[c] : 0;
        }
        T alpha;
        if (p.deltas) {
            const T density = p.densities[i], delta = p.deltas[i];
            alpha = reach > 0 ? weight / reach : 0;  // nothing reaches it: it does not matter
            const T slope = passes * (g - behind);
            p.grad_densities[i] = slope == 0 || delta - delta != 0 ? 0 : slope * delta;
            if (p.grad_deltas) p.grad_deltas[i] = slope * density;
        } else {
            alpha = p.densities[i];
            p.grad_densities[i] = reach * (g - behind);
        }
        passes = reach;
        behind = alpha * g + (1 - alpha) * behind;
    }
}

}  // namespace sdfgan
