// What a warp does of film_siren_backward.cu: tiles of eight points forward and back through all
// layers. The formulas are those of cpu/film_siren_backward.cpp; products.cuh says how lanes hold a
// tile.
//
// All of a point's backward pass is linear in what comes in for it (grad_sdf, grad_gradient,
// grad_texture), and these are divided by a power of two before, the largest of the point's: so
// fp16 operands neither underflow nor overflow with the loss. Sums over points of one image are in
// fp32; in the operands of the matrices' gradients points are weighted as shares of the largest of
// all.
#pragma once

#include <cmath>
#include <cstring>

#include "cuda/products.cuh"
#include "kernels/film_siren.h"

namespace sdfgan::cuda {

// What a warp has summed over all its points: rows of [W], in pairs that are summed together.
enum CommonRow { kSdfHead = 0, kTextureHead = 2, kFirst = 6, kConstants = 10, kCommonRows };

struct BackwardWork {
    FilmSirenBackward<float> p;
    int trunk, sdf_end, layers;
    int end;              // of the layers that the loss depends on
    int64_t* tile_begin;  // [images + 1]
    unsigned* largest;    // the bits of the largest power of two that a point was divided by
    float4* state;        // [tiles, layers + 1, W / 8, 32] what a lane will want again
    void* features;       // [tiles, layers, W, 8] words
    void* adjoints;       // the same: u
    float* film_sums;     // [warps + images, 2 layers, W] of a warp and an image: their sum is it
    float* common;        // [warps, kCommonRows, W]
    float* matrices;      // [slices, layers - 1, W^2 / 2048, 64, 32]
    int64_t chunk_begin, chunk_tiles, warps, slices;
};

__device__ inline int64_t tiles_of_chunk(const BackwardWork& w) {
    const int64_t rest = w.tile_begin[w.p.network.images] - w.chunk_begin;
    return rest < 0 ? 0 : min_of(rest, w.chunk_tiles);
}

__device__ inline unsigned exponent_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits & 0x7f800000;
}

// The power of two at or below |value|, or 1 for what has none.
__device__ inline unsigned power_bits(float value) {
    const unsigned bits = exponent_bits(value);
    return bits == 0 || bits == 0x7f800000 ? 0x3f800000 : bits;
}

__device__ inline float as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

// The largest of what comes in for a point; NaN is passed over.
__device__ inline float largest_of_point(const FilmSirenBackward<float>& p, int64_t point) {
    float largest = p.grad_sdf ? fabsf(p.grad_sdf[point]) : 0.f;
    for (int axis = 0; axis < 3; ++axis) {
        if (p.grad_gradient) largest = fmaxf(largest, fabsf(p.grad_gradient[3 * point + axis]));
        if (p.grad_texture) largest = fmaxf(largest, fabsf(p.grad_texture[3 * point + axis]));
    }
    return largest;
}

// Lanes that are 2 kHalf apart share what both have of 2 kHalf values.
template <int kHalf>
__device__ __forceinline__ void sum_and_share(float (&values)[16]) {
    const bool upper = (threadIdx.x & 2 * kHalf) != 0;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
        const float low = values[i], high = values[i + kHalf];
        values[i] =
            (upper ? high : low) + __shfl_xor_sync(kAllLanes, upper ? low : high, 2 * kHalf);
    }
}

// Sums over a tile's points: of 16 values in each lane, whose indices are those of the result, the
// two that are left to this lane: 2 lane_group() and the next.
__device__ __forceinline__ void sum_of_points(float (&values)[16]) {
    sum_and_share<8>(values);
    sum_and_share<4>(values);
    sum_and_share<2>(values);
}

template <class Products>
class Differentiator {
    using Word = typename Products::Word;
    static constexpr int W = Products::kWidth;

  public:
    __device__ Differentiator(const BackwardWork& w, int64_t warp, unsigned char* shared)
        : w_(w), n_(w.p.network), warp_(warp), products_(shared) {}

    __device__ void run() {
        const int64_t count = tiles_of_chunk(w_);
        const int64_t begin = warp_ * count / w_.warps, end = (warp_ + 1) * count / w_.warps;
        int64_t image = -1;
        for (int64_t tile = begin; tile < end; ++tile) {
            const int64_t before = image;
            image = image_of(w_.chunk_begin + tile);
            new_run_ = tile == begin, new_image_ = image != before;
            load_tile(tile, image);
            differentiate();
        }
    }

  private:
    __device__ int below(int layer) const { return layer == w_.sdf_end ? w_.trunk - 1 : layer - 1; }

    __device__ int64_t image_of(int64_t tile) const {
        int64_t low = 0, high = n_.images;  // the last that begins at the tile or before
        while (high - low > 1) {
            const int64_t middle = (low + high) / 2;
            (w_.tile_begin[middle] <= tile ? low : high) = middle;
        }
        return low;
    }

    // Points past the end repeat the last one, with gradients of zero.
    __device__ void load_tile(int64_t tile, int64_t image) {
        const FilmSirenBackward<float>& p = w_.p;
        const int64_t at = p.begin[image] +
                           (w_.chunk_begin + tile - w_.tile_begin[image]) * kTilePoints +
                           lane_group();
        valid_ = at < p.begin[image + 1];
        point_ = p.order[valid_ ? at : p.begin[image + 1] - 1];
        factor_ = valid_ ? as_float(power_bits(largest_of_point(p, point_))) : 1.f;
        s_ = valid_ && p.grad_sdf ? p.grad_sdf[point_] / factor_ : 0.f;
        for (int i = 0; i < 3; ++i) {
            x_[i] = p.points[3 * point_ + i];
            g_[i] = valid_ && p.grad_gradient ? p.grad_gradient[3 * point_ + i] / factor_ : 0.f;
            t_[i] = valid_ && p.grad_texture ? p.grad_texture[3 * point_ + i] / factor_ : 0.f;
        }
        const unsigned largest = *w_.largest;
        share_ = largest > 0 ? min_of(factor_ / as_float(largest), 1.f) : 1.f;
        const int64_t film = image * w_.layers * W + lane_pair();
        scale_ = n_.scale + film, shift_ = n_.shift + film;
        state_ = w_.state + tile * (w_.layers + 1) * (W / 8 * kWarp) + threadIdx.x % kWarp;
        const int64_t words = (tile * w_.layers * W + lane_pair()) * kTilePoints;
        features_ = static_cast<Word*>(w_.features) + words + Products::place();
        adjoints_ = static_cast<Word*>(w_.adjoints) + words + Products::place();
        film_sums_ = w_.film_sums + (warp_ + image) * 2 * w_.layers * W;
        common_ = w_.common + warp_ * kCommonRows * W;
    }

    // {z, z, tangent of z, tangent of z}, then the adjoint of the trunk's features that the texture
    // gives, as {a, a}.
    __device__ float4& state(int layer, int n) const {
        return state_[(layer * (W / 8) + n / 8) * kWarp];
    }

    __device__ void store_words(Word* words, int layer, int n, Word a, Word b) const {
        Word* const to = words + (layer * W + n) * kTilePoints;
        to[0] = a, to[kTilePoints] = b;
    }

    // Two neighbouring features of a lane's point at a layer.
    struct Features {
        float scale[2], z[2], tangent_z[2], sine[2], cosine[2];
        __device__ float tangent(int i) const { return cosine[i] * scale[i] * tangent_z[i]; }
    };

    __device__ __forceinline__ Features features(int layer, int n, const float4& z) const {
        const float2 scale = *reinterpret_cast<const float2*>(scale_ + layer * W + n);
        const float2 shift = *reinterpret_cast<const float2*>(shift_ + layer * W + n);
        const float phase[2] = {std::fmaf(z.x, scale.x, shift.x), std::fmaf(z.y, scale.y, shift.y)};
        Features f{{scale.x, scale.y}, {z.x, z.y}, {z.z, z.w}, {}, {}};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            f.sine[i] = Products::sine_of(phase[i]);
            f.cosine[i] = Products::cosine_of(phase[i]);
        }
        return f;
    }

    // From sums to what the next layer takes in.
    __device__ __forceinline__ void activate(int layer, int begin, const float (&sums)[4][4]) {
        const bool feeds = layer != w_.sdf_end - 1 && layer != w_.layers - 1;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int n = begin + 8 * i;
            const float4 z = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
            state(layer, n) = z;
            if (!feeds) continue;
            const Features f = features(layer, n, z);
            const float values[4] = {f.sine[0], f.sine[1], f.tangent(0), f.tangent(1)};
            products_.put(n, values);
            store_words(features_, layer, n, Products::word(values[0], values[2] * share_),
                        Products::word(values[1], values[3] * share_));
        }
    }

    // Adds to two rows of sums: values are [i][row][feature], of the features begin + 8 i and on.
    __device__ __forceinline__ void add_rows(float* rows, int begin, float (&values)[16],
                                             bool is_new) const {
        sum_of_points(values);
        const int own = lane_group();
        float2* const to =
            reinterpret_cast<float2*>(rows + own % 2 * W + begin + own / 2 * 8 + lane_pair());
        float2 sum = {values[0], values[1]};
        if (!is_new) sum.x += to->x, sum.y += to->y;
        *to = sum;
    }

    // From the adjoints {a, a, of the tangents} of features n and n + 1 to the u of the layer and
    // the four sums of FiLM.
    __device__ __forceinline__ void through_sine(const Features& f, const float (&a)[4],
                                                 float (&u)[4], float* film) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float tangent_q = a[2 + i] * f.cosine[i];
            const float q =
                a[i] * f.cosine[i] - a[2 + i] * f.sine[i] * (f.scale[i] * f.tangent_z[i]);
            film[i] = factor_ * (q * f.z[i] + tangent_q * f.tangent_z[i]);
            film[2 + i] = factor_ * q;
            u[i] = f.scale[i] * q;
            u[2 + i] = f.scale[i] * tangent_q;
        }
    }

    __device__ __forceinline__ void hand_down(int layer, int n, const float (&u)[4]) {
        products_.put(n, u);
        store_words(adjoints_, layer, n, Products::word(u[0] * share_, u[2]),
                    Products::word(u[1] * share_, u[3]));
    }

    __device__ void differentiate() {
#pragma unroll 1
        for (int begin = 0; begin < W; begin += 32) {
            float sums[4][4];
#pragma unroll
            for (int i = 0; i < 4; ++i) first_products(begin + 8 * i, sums[i]);
            activate(0, begin, sums);
        }
        products_.hand_on();
        for (int layer = 1; layer < w_.end; ++layer) {
            if (layer == w_.sdf_end) take_trunk();
            products_.multiply_by(n_.hidden, layer - 1, [&](int begin, const float (&sums)[4][4]) {
                activate(layer, begin, sums);
            });
            products_.hand_on();
        }
        if (w_.p.grad_texture) texture_head();
        for (int layer = w_.end - 1; layer > 0; --layer) {
            if (layer == w_.sdf_end - 1) sdf_head();
            reverse(layer);
        }
        first_layer();
    }

    __device__ __forceinline__ void first_weights(int n, float (&weights)[6]) const {
        const float2* const from =
            reinterpret_cast<const float2*>(n_.first + 3 * (n + lane_pair()));
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            const float2 two = from[i];
            weights[2 * i] = two.x, weights[2 * i + 1] = two.y;
        }
    }

    __device__ __forceinline__ void first_products(int n, float (&sums)[4]) const {
        float w[6];
        first_weights(n, w);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            sums[i] = w[3 * i] * x_[0] + w[3 * i + 1] * x_[1] + w[3 * i + 2] * x_[2];
            sums[2 + i] = w[3 * i] * g_[0] + w[3 * i + 1] * g_[1] + w[3 * i + 2] * g_[2];
        }
    }

    // The trunk's features once more, without tangents, for the texture.
    __device__ void take_trunk() {
#pragma unroll 1
        for (int n = 0; n < W; n += 8) {
            const Features f = features(w_.trunk - 1, n, state(w_.trunk - 1, n));
            const float values[4] = {f.sine[0], f.sine[1], 0, 0};
            products_.put(n, values);
        }
        products_.hand_on();
    }

    __device__ void texture_head() {
        const bool bare = w_.layers == w_.sdf_end;  // the head is on the trunk's features
        const int last = bare ? w_.trunk - 1 : w_.layers - 1;
#pragma unroll 1
        for (int begin = 0; begin < W; begin += 32) {
            float film[16], head[16], rest[16];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int n = begin + 8 * i;
                const Features f = features(last, n, state(last, n));
                float a[4] = {};
#pragma unroll
                for (int channel = 0; channel < 3; ++channel) {
                    const float2 w = *reinterpret_cast<const float2*>(
                        n_.texture_head + channel * W + n + lane_pair());
                    a[0] += w.x * t_[channel], a[1] += w.y * t_[channel];
                }
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const float feature = factor_ * f.sine[j];
                    head[4 * i + j] = t_[0] * feature, head[4 * i + 2 + j] = t_[1] * feature;
                    rest[4 * i + j] = t_[2] * feature, rest[4 * i + 2 + j] = 0;
                }
                if (bare) {
                    state(w_.layers, n) = make_float4(a[0], a[1], 0, 0);
                    continue;
                }
                float u[4];
                through_sine(f, a, u, film + 4 * i);
                hand_down(last, n, u);
            }
            add_rows(common_ + kTextureHead * W, begin, head, new_run_);
            add_rows(common_ + (kTextureHead + 2) * W, begin, rest, new_run_);
            if (!bare) add_rows(film_sums_ + 2 * last * W, begin, film, new_image_);
        }
        if (!bare) products_.hand_on();
    }

    __device__ void sdf_head() {
        const int last = w_.sdf_end - 1;
#pragma unroll 1
        for (int begin = 0; begin < W; begin += 32) {
            float film[16], head[16];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int n = begin + 8 * i;
                const Features f = features(last, n, state(last, n));
                const float2 w = *reinterpret_cast<const float2*>(n_.sdf_head + n + lane_pair());
                const float a[4] = {s_ * w.x, s_ * w.y, w.x, w.y};
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    head[4 * i + j] = factor_ * (s_ * f.sine[j] + f.tangent(j));
                    head[4 * i + 2 + j] = 0;
                }
                float u[4];
                through_sine(f, a, u, film + 4 * i);
                hand_down(last, n, u);
            }
            add_rows(common_ + kSdfHead * W, begin, head, new_run_);
            add_rows(film_sums_ + 2 * last * W, begin, film, new_image_);
        }
        products_.hand_on();
    }

    // From the u of a layer to that of the one below.
    __device__ void reverse(int layer) {
        const int to = below(layer);
        products_.multiply_by(n_.transposed, layer - 1, [&](int begin, const float (&sums)[4][4]) {
            float film[16];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int n = begin + 8 * i;
                if (layer == w_.sdf_end) {  // joins the adjoint of the trunk, when that is met
                    state(w_.layers, n) = make_float4(sums[i][0], sums[i][1], 0, 0);
                    continue;
                }
                float a[4] = {sums[i][0], sums[i][1], sums[i][2], sums[i][3]}, u[4];
                if (layer == w_.trunk && w_.p.grad_texture) {
                    const float4 joined = state(w_.layers, n);
                    a[0] += joined.x, a[1] += joined.y;
                }
                through_sine(features(to, n, state(to, n)), a, u, film + 4 * i);
                if (to > 0) {
                    hand_down(to, n, u);
                } else {
                    state(0, n) = make_float4(u[0], u[1], u[2], u[3]);
                }
            }
            if (layer != w_.sdf_end) {
                add_rows(film_sums_ + 2 * to * W, begin, film, new_image_);
            }
        });
        if (to > 0 && layer != w_.sdf_end) products_.hand_on();
    }

    // From u, which is where the first layer's z was: its own sums, and the points' gradient.
    __device__ void first_layer() {
        float slope[3] = {};
#pragma unroll 1
        for (int begin = 0; begin < W; begin += 32) {
            float rows[16], rest[16];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float4 four = state(0, begin + 8 * i);
                const float u[2] = {four.x, four.y}, tangent[2] = {four.z, four.w};
                float w[6];
                first_weights(begin + 8 * i, w);
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    float sums[3];
#pragma unroll
                    for (int axis = 0; axis < 3; ++axis) {
                        slope[axis] += u[j] * w[3 * j + axis];
                        sums[axis] = factor_ * (u[j] * x_[axis] + tangent[j] * g_[axis]);
                    }
                    rows[4 * i + j] = sums[0], rows[4 * i + 2 + j] = sums[1];
                    rest[4 * i + j] = sums[2], rest[4 * i + 2 + j] = 0;
                }
            }
            add_rows(common_ + kFirst * W, begin, rows, new_run_);
            add_rows(common_ + (kFirst + 2) * W, begin, rest, new_run_);
        }
        float square = n_.constants[0], along = 0;
        for (int axis = 0; axis < 3; ++axis) {
            slope[axis] = sum_of_lanes<4>(slope[axis]);
            square += x_[axis] * x_[axis];
            along += x_[axis] * g_[axis];
        }
        const float inverse = 1 / sqrtf(square), of_radius = s_ - along * inverse * inverse;
        const bool own = valid_ && lane_pair() == 0;
        for (int axis = 0; axis < 3 && own; ++axis) {
            w_.p.grad_points[3 * point_ + axis] =
                factor_ * (slope[axis] + inverse * (g_[axis] + x_[axis] * of_radius));
        }
        const float sums[2] = {sum_of_lanes<kWarp>(own ? factor_ * inverse * of_radius / 2 : 0.f),
                               sum_of_lanes<kWarp>(own ? factor_ * s_ : 0.f)};
        if (threadIdx.x % kWarp != 0) return;
        for (int i = 0; i < 2; ++i) {
            float& to = common_[kConstants * W + i];
            to = new_run_ ? sums[i] : to + sums[i];
        }
    }

    const BackwardWork& w_;
    const FilmSiren<float>& n_;
    const int64_t warp_;
    Products products_;
    bool new_run_, new_image_;  // its sums have not begun yet
    bool valid_;
    int64_t point_;
    float x_[3], g_[3], t_[3], s_;  // the latter three in units of factor_
    float factor_, share_;          // factor_ as a share of the largest
    const float *scale_, *shift_;
    float4* state_;
    Word *features_, *adjoints_;
    float *film_sums_, *common_;
};

}  // namespace sdfgan::cuda
