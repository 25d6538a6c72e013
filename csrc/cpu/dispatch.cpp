// Chooses the instruction set of the CPU kernels: the best this machine has, or the one that the
// environment variable SDFGAN_SIMD names.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

const Table* find(const std::string& level) {
#ifdef SDFGAN_HAS_AVX2
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2");
#ifdef SDFGAN_HAS_AVX512
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
#ifdef SDFGAN_HAS_AVX512BF16
    const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    if (bf16 && (level.empty() || level == "avx512bf16")) return &table_avx512bf16;
#endif
    if (avx512 && (level.empty() || level == "avx512")) return &table_avx512;
#endif
    if (avx2 && (level.empty() || level == "avx2")) return &table_avx2;
#endif
    if (level.empty() || level == "base") return &table_base;
    throw std::invalid_argument(
        "SDFGAN_SIMD: must be base, avx2, avx512 or avx512bf16 and known to this CPU, got " +
        level);
}

const Table*& current() {
    static const Table* table = [] {
        const char* level = std::getenv("SDFGAN_SIMD");
        return find(level ? level : "");
    }();
    return table;
}

}  // namespace

const Table& table() { return *current(); }
const char* simd() { return current()->name; }
bool has_bf16() { return current()->bf16; }
void set_simd(const char* level) { current() = find(level); }

}  // namespace sdfgan::cpu
