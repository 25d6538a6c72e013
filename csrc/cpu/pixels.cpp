// The loop of core/pixels.h.
#include "core/pixels.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
void sample_pixels(const SamplePixels<T>& p, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sample_pixel(p, i);
}

}  // namespace

SDFGAN_LOOP(sample_pixels, SamplePixels)

}  // namespace sdfgan::cpu
