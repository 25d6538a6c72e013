// The loop of core/adam.h over lines of kAdamLine numbers. Most lines are only looked at. Those
// that a gradient reaches are found first, many at a time, so that their memory is on its way
// before it is needed.
#include "core/adam.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

constexpr int kLines = 256;  // looked at before a step is made on those that are reached

template <class T>
void step_on_line(const LazyAdam<T>& p, const AdamFactors<T>& by, int64_t first, int count) {
    T* const gradient = p.gradient + first;
    T* const parameter = p.parameter + first;
    T* const mean = p.mean + first;
    T* const square = p.square + first;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
        T own = parameter[i], own_mean = mean[i], own_square = square[i];
        const bool is_reached = gradient[i] != 0;
        adam_number(by, gradient[i], own, own_mean, own_square);
        parameter[i] = is_reached ? own : parameter[i];
        mean[i] = is_reached ? own_mean : mean[i];
        square[i] = is_reached ? own_square : square[i];
        gradient[i] = 0;
    }
}

template <class T>
void lazy_adam(const LazyAdam<T>& p, int64_t begin, int64_t end) {
    const AdamFactors<T> by = adam_factors(p);
    const bool skips = adam_skips(p);
    const int64_t whole = p.count / kAdamLine;  // lines
    for (int64_t line = begin; line < end; line += kLines) {
        const int64_t next = min_of(line + kLines, end);
        int64_t reached[kLines];
        int found = 0;
        for (int64_t at = line; at < next; ++at) {
            const int64_t first = at * kAdamLine;
            const T* const gradient = p.gradient + first;
            const int count = at < whole ? kAdamLine : static_cast<int>(p.count - first);
            int any = 0;
#pragma omp simd reduction(| : any)
            for (int i = 0; i < count; ++i) any |= gradient[i] != 0;
            reached[found] = first;
            found += any;
            if (any && !skips) {
                __builtin_prefetch(p.parameter + first, 1);
                __builtin_prefetch(p.mean + first, 1);
                __builtin_prefetch(p.square + first, 1);
            }
        }
        for (int k = 0; k < found; ++k) {
            const int64_t first = reached[k];
            const int count = static_cast<int>(min_of<int64_t>(kAdamLine, p.count - first));
            if (skips) {
                for (int i = 0; i < count; ++i) p.gradient[first + i] = 0;
            } else if (count == kAdamLine) {
                step_on_line(p, by, first, kAdamLine);
            } else {
                step_on_line(p, by, first, count);
            }
        }
    }
}

}  // namespace

SDFGAN_LOOP(lazy_adam, LazyAdam)

}  // namespace sdfgan::cpu
