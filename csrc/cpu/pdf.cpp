// The loop of core/pdf.h.
#include "core/pdf.h"

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

template <class T>
void sample_pdf(const SamplePdf<T>& p, int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) sample_pdf_ray(p, ray);
}

}  // namespace

SDFGAN_LOOP(sample_pdf, SamplePdf)

}  // namespace sdfgan::cpu
