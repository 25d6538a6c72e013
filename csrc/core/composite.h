// Emission and absorption along one ray (Max 1995; Mildenhall et al. 2020, eq. 3): sample i lets
// the share 1 - a_i through, and P_i = prod_{j<i} (1 - a_j) reaches it; its weight is a_i P_i.
#pragma once

#include "core/exponential.h"
#include "kernels/composite.h"

namespace sdfgan {

SDFGAN_HD void range_of_ray(const RaySamples& at, int64_t ray, int64_t& begin, int64_t& end) {
    begin = ray * at.samples, end = begin + at.samples;
    if (!at.offsets) return;
    const int64_t none = 0;  // whatever the offsets hold, nothing outside the samples is touched
    begin = min_of(max_of(at.offsets[ray], none), at.samples);
    end = min_of(max_of(at.offsets[ray + 1], begin), at.samples);
}

// A density of zero is transparent over any length.
template <class T>
SDFGAN_HD T opacity_of(T density, T delta) {
    const T opacity = one_minus_exp(density * delta);
    return density == 0 ? 0 : opacity;
}

// a_i of the samples of a ray.
template <class T>
SDFGAN_HD void opacities(const T* densities, const T* deltas, T* out, int64_t begin, int64_t end) {
    if (!deltas) {
        for (int64_t i = begin; i < end; ++i) out[i - begin] = densities[i];
        return;
    }
    for (int64_t i = begin; i < end; ++i) {
        out[i - begin] = opacity_of(densities[i], deltas[i]);
    }
}

// kChannels: the number of channels where it is known to the compiler, which then keeps what
// belongs to a ray in registers; else 0. Samples go through in blocks of kBlock, whose opacities
// vectorise. CUDA has the same by lanes of a warp (cuda/composite.cuh).
template <int kChannels, int kBlock, class T>
SDFGAN_HD void composite_ray(const Composite<T>& p, int64_t ray) {
    const int64_t channels = kChannels ? kChannels : p.channels;
    int64_t begin, end;
    range_of_ray(p.at, ray, begin, end);
    T passes = 1, opacity = 0, depth = 0, alpha[kBlock], known[kChannels ? kChannels : 1] = {};
    T* out = p.out + ray * channels;
    T* sums = kChannels ? known : out;
    for (int64_t c = 0; c < channels; ++c) sums[c] = 0;
    for (int64_t first = begin; first < end; first += kBlock) {
        const int64_t count = min_of<int64_t>(kBlock, end - first);
        opacities(p.densities, p.deltas, alpha, first, first + count);
        for (int64_t k = 0; k < count; ++k) {
            const int64_t i = first + k;
            const T weight = alpha[k] * passes;
            p.weights[i] = weight;
            passes *= 1 - alpha[k];
            opacity += weight;
            if (p.distances) depth += weight * p.distances[i];
            for (int64_t c = 0; c < channels; ++c) sums[c] += weight * p.colors[i * channels + c];
        }
    }
    if (kChannels) {
        for (int64_t c = 0; c < channels; ++c) out[c] = sums[c];
    }
    p.opacity[ray] = opacity;
    if (p.depth) p.depth[ray] = depth;
}

// With g_i the gradient by weight i, and what arrives from behind sample i per unit of light,
// B_i = a_{i+1} g_{i+1} + (1 - a_{i+1}) B_{i+1}:  dL/da_i = P_i (g_i - B_i). By the thickness
// x = density delta it is that times 1 - a_i. No division by 1 - a, so opaque samples are exact.
// In a block all but the recurrences vectorises.
template <int kChannels, int kBlock, class T>
SDFGAN_HD void composite_ray_backward(const CompositeBackward<T>& p, int64_t ray) {
    const int64_t channels = kChannels ? kChannels : p.channels;
    int64_t begin, end;
    range_of_ray(p.at, ray, begin, end);
    T* reaches = p.grad_densities;  // P_i until the gradient replaces it
    T passes = 1, alpha[kBlock], g[kBlock], from_behind[kBlock];
    for (int64_t first = begin; first < end; first += kBlock) {
        const int64_t count = min_of<int64_t>(kBlock, end - first);
        opacities(p.densities, p.deltas, alpha, first, first + count);
        for (int64_t k = 0; k < count; ++k) {
            reaches[first + k] = passes;
            passes *= 1 - alpha[k];
        }
    }
    const T grad_opacity = p.grad_opacity ? p.grad_opacity[ray] : 0;
    const T grad_depth = p.grad_depth ? p.grad_depth[ray] : 0;
    const T* grad_out = p.grad_out ? p.grad_out + ray * channels : nullptr;
    T known[kChannels ? kChannels : 1] = {};
    const T* grad_color = kChannels ? known : grad_out;
    if (kChannels && grad_out) {
        for (int64_t c = 0; c < channels; ++c) known[c] = grad_out[c];
    }
    T behind = 0;
    for (int64_t stop = end; stop > begin; stop -= kBlock) {
        const int64_t first = max_of(begin, stop - kBlock), count = stop - first;
        opacities(p.densities, p.deltas, alpha, first, stop);
        for (int64_t k = 0; k < count; ++k) g[k] = grad_opacity;
        if (p.grad_weights) {
            for (int64_t k = 0; k < count; ++k) g[k] += p.grad_weights[first + k];
        }
        if (p.grad_depth) {
            for (int64_t k = 0; k < count; ++k) g[k] += grad_depth * p.distances[first + k];
        }
        if (grad_out) {
            const T* color = p.colors + first * channels;
            for (int64_t k = 0; k < count; ++k) {
                for (int64_t c = 0; c < channels; ++c)
                    g[k] += grad_color[c] * color[k * channels + c];
            }
        }
        if (p.grad_colors) {
            T* target = p.grad_colors + first * channels;
            for (int64_t k = 0; k < count; ++k) {
                for (int64_t c = 0; c < channels; ++c) {
                    target[k * channels + c] = grad_out ? p.weights[first + k] * grad_color[c] : 0;
                }
            }
        }
        if (p.grad_distances) {
            for (int64_t k = 0; k < count; ++k) {
                p.grad_distances[first + k] = p.weights[first + k] * grad_depth;
            }
        }
        for (int64_t k = count; k-- > 0;) {
            from_behind[k] = behind;
            behind = alpha[k] * g[k] + (1 - alpha[k]) * behind;
        }
        for (int64_t k = 0; k < count; ++k) g[k] = reaches[first + k] * (g[k] - from_behind[k]);
        if (!p.deltas) {
            for (int64_t k = 0; k < count; ++k) p.grad_densities[first + k] = g[k];
            continue;
        }
        for (int64_t k = 0; k < count; ++k) {
            const T density = p.densities[first + k], delta = p.deltas[first + k];
            const T slope = (1 - alpha[k]) * g[k];
            const T gradient = slope * delta;
            p.grad_densities[first + k] = ((slope == 0) | (delta - delta != 0)) ? 0 : gradient;
            g[k] = slope * density;
        }
        if (p.grad_deltas) {
            for (int64_t k = 0; k < count; ++k) p.grad_deltas[first + k] = g[k];
        }
    }
}

}  // namespace sdfgan
