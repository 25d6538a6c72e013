// A parallel loop on the OpenMP runtime that torch uses too: Python imports torch first, and the
// loader then shares its libgomp. A thread pool of our own would fight torch's spinning workers.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

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

// Calls begin(n) and then body() on each of n threads: as many as there are to be had, at most
// `threads`.
template <class Begin, class Body>
void run_threads(int threads, const Begin& begin, const Body& body) {
#ifdef SDFGAN_STD_THREADS  // for ThreadSanitizer, which does not understand libgomp
    begin(threads);
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(body);
    body();
    for (std::thread& other : others) other.join();
    return;
#elif defined(_OPENMP)
    if (threads > 1 && !forked() && !omp_in_parallel()) {
#pragma omp parallel num_threads(threads)
        {
#pragma omp single
            begin(omp_get_num_threads());
            body();
        }
        return;
    }
#endif
    begin(1);
    body();
}

// Calls body(begin, end) on pieces of [0, n) of at least `grain`, on at most `threads` threads.
template <class Body>
void parallel_for(int64_t n, int64_t grain, int threads, const Body& body) {
    if (n <= 0) return;
    const int64_t most = (n + grain - 1) / grain;
    int64_t pieces = 1;
    std::atomic<int64_t> next{0};
    run_threads(
        static_cast<int>(most < threads ? most : threads), [&](int count) { pieces = count; },
        [&] {
            const int64_t size = (n + pieces - 1) / pieces;
            const int64_t begin = next.fetch_add(1) * size;
            const int64_t end = begin + size < n ? begin + size : n;
            if (begin < end) body(begin, end);
        });
}

}  // namespace sdfgan::cpu
