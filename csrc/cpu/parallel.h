// A parallel loop on the OpenMP runtime that torch uses too: Python imports torch first, and the
// loader then shares its libgomp. A thread pool of our own would fight torch's spinning workers.
#pragma once

#include <pthread.h>

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace sdfgan::cpu {

// libgomp's workers do not survive fork(); in the child a parallel region would hang.
inline bool& forked() {
    static bool flag = false;
    static const int registered = pthread_atfork(nullptr, nullptr, [] { forked() = true; });
    (void)registered;
    return flag;
}

// Calls body(begin, end) on pieces of [0, n) of at least `grain`, on at most `threads` threads.
template <class Body>
void parallel_for(int64_t n, int64_t grain, int threads, const Body& body) {
    if (n <= 0) return;
#ifdef _OPENMP
    const int64_t pieces = (n + grain - 1) / grain;
    if (pieces < threads) threads = static_cast<int>(pieces);
    if (threads > 1 && !forked() && !omp_in_parallel()) {
#pragma omp parallel num_threads(threads)
        {
            const int64_t size = (n + omp_get_num_threads() - 1) / omp_get_num_threads();
            const int64_t begin = omp_get_thread_num() * size;
            const int64_t end = begin + size < n ? begin + size : n;
            if (begin < end) body(begin, end);
        }
        return;
    }
#else
    (void)grain;
    (void)threads;
#endif
    body(int64_t{0}, n);
}

}  // namespace sdfgan::cpu
