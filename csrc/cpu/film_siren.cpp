// FiLM-SIREN values, gradients and textures at many points (cpu/film_siren.h says how).
#include "cpu/film_siren.h"

namespace sdfgan::cpu {
namespace {

template <class T, class Form>
void sample(const FilmSirenSample<T>& p, const PointGroup* groups, int64_t count) {
    Evaluator<T, Form> evaluator(p.network);
    alignas(64) T x[3][kTile], sdf[kTile], gradient[3][kTile], texture[3][kTile];
    int64_t image[kTileGroups];
    for (int64_t first = 0; first < count; first += kTileGroups) {
        const int n = static_cast<int>(min_of<int64_t>(kTileGroups, count - first));
        for (int g = 0; g < n; ++g) {
            const PointGroup& group = groups[first + g];
            image[g] = group.image;
            for (int i = 0; i < kGroup; ++i) {
                // Lanes past the end repeat the last point.
                const T* point = p.points + 3 * min_of(group.begin + i, group.end - 1);
                for (int axis = 0; axis < 3; ++axis) x[axis][g * kGroup + i] = point[axis];
            }
        }
        if (p.gradient || p.texture) {
            evaluator.sample(x, image, n, sdf, p.gradient ? gradient : nullptr,
                             p.texture ? texture : nullptr);
        } else {
            evaluator.sdf(x, image, n, sdf);
        }
        for (int g = 0; g < n; ++g) {
            const PointGroup& group = groups[first + g];
            for (int64_t i = group.begin; i < group.end; ++i) {
                const int64_t lane = g * kGroup + i - group.begin;
                p.sdf[i] = sdf[lane];
                for (int axis = 0; axis < 3; ++axis) {
                    if (p.gradient) p.gradient[3 * i + axis] = gradient[axis][lane];
                    if (p.texture) p.texture[3 * i + axis] = texture[axis][lane];
                }
            }
        }
    }
}

}  // namespace

// Plain functions: table.cpp puts them into the table of this instruction set.
void SDFGAN_LEVEL(film_siren_)(const FilmSirenSample<float>& p, const PointGroup* groups,
                               int64_t count) {
    const bool bf16 = p.network.matrices == Matrices::kBf16;
    const auto run = bf16 ? sample<float, Bf16> : sample<float, Full<float>>;
    run(p, groups, count);
}
void SDFGAN_LEVEL(film_siren_)(const FilmSirenSample<double>& p, const PointGroup* groups,
                               int64_t count) {
    sample<double, Full<double>>(p, groups, count);
}

// 24 independent sums: enough to hide the latency of a multiply-add.
template <class Form>
static double multiply_adds(int64_t rounds, typename Form::Stored weight) {
    typename Form::Real sum[24];
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) sum[j] = typename Form::Real{} + static_cast<float>(j + 1);
    for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
        for (int j = 0; j < 24; ++j)
            sum[j] = Form::multiply_add(typename Form::Real{}, sum[j], weight);
    }
    volatile double sink = 0;  // the sums are needed
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) sink = sink + sum[j][0];
    return 24. * (kVectorBytes / 4) * Form::kPack * 2 * rounds;
}

double SDFGAN_LEVEL(multiply_adds_)(int64_t rounds, bool bf16) {
    return bf16 ? multiply_adds<Bf16>(rounds, 0x3f003f00)
                : multiply_adds<Full<float>>(rounds, 0.5f);
}

}  // namespace sdfgan::cpu
