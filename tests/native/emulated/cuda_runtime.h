// CUDA on a CPU, as far as csrc/cuda uses it: every thread of a launch is a fiber, and fibers
// change places wherever threads wait for one another. Which goes first is random (but the same in
// each run; SDFGAN_EMULATED_SCHEDULE=<number> is another), so that a missing barrier shows as a
// wrong result. A launch returns when it is done;
// what CUDA leaves undefined (lanes that do different things together, threads that never come)
// ends the program with a message.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint4 {
    uint32_t x, y, z, w;
};
struct uint2 {
    uint32_t x, y;
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulated {

constexpr int kLanes = 32;
constexpr uint16_t kStarted = 0x5ba2;  // a barrier

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "emulated CUDA: %s\n", what);
    std::abort();
}

struct Index {
    unsigned x;
};

// Threads that wait for each other. What one brings is seen by all; two sets of places, because a
// thread may come to the next meeting before another has read what was brought to this one.
struct Meeting {
    explicit Meeting(int members) : members(members), brought(2 * members) {}
    const int members;
    std::vector<std::vector<unsigned char>> brought;
    std::vector<int> waiting;
    const char* purpose = nullptr;
    unsigned round = 0;
};

struct Block {
    Block(int threads, int bytes) : everyone(threads), running(threads), bytes(bytes) {
        if (posix_memalign(reinterpret_cast<void**>(&shared), 128, std::max(bytes, 1))) {
            fail("no memory");
        }
        std::memset(shared, 0xff, bytes);  // NaN
        for (int i = 0; i < threads / kLanes; ++i) warps.emplace_back(kLanes);
    }
    ~Block() { std::free(shared); }
    Meeting everyone;
    std::deque<Meeting> warps;
    int running;  // threads
    int bytes;
    unsigned char* shared;
};

struct Copy {
    void* to;
    const void* from;
};

// What lies in shared memory for an mbarrier.
struct Barrier {
    uint16_t arrivals, missing, started;
    uint16_t rounds;  // that are over
};
static_assert(sizeof(Barrier) == 8, "");

// A copy that arrives at a barrier.
struct Transfer {
    Copy copy;
    int bytes;
    Barrier* barrier;
    Block* block;
};

struct Thread {
    ucontext_t start;
    jmp_buf place;  // where it goes on
    std::unique_ptr<char[]> stack;
    Block* block;
    Index thread, in_block;
    std::deque<std::vector<Copy>> groups;  // of asynchronous copies
    std::vector<Copy> copies;              // of the group that is open
};

class Launch {
  public:
    Launch(int64_t blocks, int threads, int bytes, std::function<void()> kernel)
        : kernel_(std::move(kernel)),
          grid{static_cast<unsigned>(blocks)},
          size{static_cast<unsigned>(threads)} {
        if (blocks < 1 || threads < 1 || threads % kLanes) fail("a launch of no whole warps");
        for (int64_t b = 0; b < blocks; ++b) {
            blocks_.push_back(std::make_unique<Block>(threads, bytes));
            for (int t = 0; t < threads; ++t) {
                auto thread = std::make_unique<Thread>();
                thread->block = blocks_.back().get();
                thread->thread = {static_cast<unsigned>(t)};
                thread->in_block = {static_cast<unsigned>(b)};
                runnable_.push_back(static_cast<int>(threads_.size()));
                threads_.push_back(std::move(thread));
            }
        }
    }

    void run() {
        current = this;
        size_t done = 0;
        while (!runnable_.empty() || !transfers_.empty()) {
            if (!transfers_.empty() && (runnable_.empty() || random_() % 64 == 0)) {
                finish_transfer(random_() % transfers_.size());
                continue;
            }
            const size_t pick = random_() % runnable_.size();
            std::swap(runnable_[pick], runnable_.back());
            running_ = runnable_.back();
            runnable_.pop_back();
            Thread& thread = self();
            finished_ = false;
            go_on(thread);
            if (finished_) {
                if (!thread.groups.empty() || !thread.copies.empty()) {
                    fail("a thread ended before its asynchronous copies");
                }
                if (--thread.block->running == 0) {
                    for (const Transfer& transfer : transfers_) {
                        if (transfer.block == thread.block) fail("a block ended before its copies");
                    }
                }
                thread.stack.reset();
                ++done;
            }
        }
        if (done != threads_.size()) fail("threads wait for others that never come");
        current = nullptr;
    }

    Thread& self() { return *threads_[running_]; }

    // Brings bytes to a meeting; returns, for each member, what it has brought.
    template <class T>
    const std::vector<unsigned char>* meet(Meeting& meeting, int member, const char* purpose,
                                           const T& bring) {
        if (!meeting.waiting.empty() && meeting.purpose != purpose) {
            fail("threads that must do the same do different things");
        }
        meeting.purpose = purpose;
        auto* const places = &meeting.brought[meeting.round % 2 * meeting.members];
        const auto* bytes = reinterpret_cast<const unsigned char*>(&bring);
        places[member].assign(bytes, bytes + sizeof(T));
        if (static_cast<int>(meeting.waiting.size()) + 1 < meeting.members) {
            meeting.waiting.push_back(running_);
            stop_here();
        } else {
            ++meeting.round;
            for (int thread : meeting.waiting) runnable_.push_back(thread);
            meeting.waiting.clear();
        }
        return places;
    }

    void arrive(Barrier* barrier) {
        check(barrier);
        if (--barrier->missing > 0) return;
        barrier->missing = barrier->arrivals;
        ++barrier->rounds;
        const auto stays = [&](const Waiting& w) {
            if (w.barrier != barrier) return true;
            runnable_.push_back(w.thread);
            return false;
        };
        waiting_.erase(std::stable_partition(waiting_.begin(), waiting_.end(), stays),
                       waiting_.end());
    }

    void wait(Barrier* barrier, unsigned parity) {
        check(barrier);
        while (barrier->rounds % 2 == parity) {
            waiting_.push_back({barrier, running_});
            stop_here();
        }
    }

    void begin(const Transfer& transfer) {
        check(transfer.barrier);
        std::memset(transfer.copy.to, 0xff, transfer.bytes);
        transfers_.push_back(transfer);
    }

    static Launch* current;

  private:
    struct Waiting {
        Barrier* barrier;
        int thread;
    };

    static void check(const Barrier* barrier) {
        if (barrier->started != kStarted) fail("a barrier that has not been started");
    }

    void finish_transfer(size_t which) {
        const Transfer transfer = transfers_[which];
        transfers_.erase(transfers_.begin() + which);
        std::memcpy(transfer.copy.to, transfer.copy.from, transfer.bytes);
        arrive(transfer.barrier);
    }

    // Returns when the thread waits or has ended. After its start by jumps, since swapcontext()
    // makes two system calls, which took most of the time.
    void go_on(Thread& thread) {
        if (_setjmp(scheduler_) != 0) return;
        if (thread.stack) _longjmp(thread.place, 1);
        thread.stack.reset(new char[kStack]);  // without zeros
        getcontext(&thread.start);
        thread.start.uc_stack.ss_sp = thread.stack.get();
        thread.start.uc_stack.ss_size = kStack;
        makecontext(&thread.start, &Launch::enter, 0);
        setcontext(&thread.start);
    }

    void stop_here() {
        if (_setjmp(self().place) == 0) _longjmp(scheduler_, 1);
    }

    static void enter() {
        Launch* const launch = current;
        launch->kernel_();
        launch->finished_ = true;
        _longjmp(launch->scheduler_, 1);
    }

    static unsigned schedule() {
        const char* const number = std::getenv("SDFGAN_EMULATED_SCHEDULE");
        return number ? static_cast<unsigned>(std::atoi(number)) : 12345;
    }

    static constexpr size_t kStack = 256 * 1024;
    std::function<void()> kernel_;
    std::vector<std::unique_ptr<Block>> blocks_;
    std::vector<std::unique_ptr<Thread>> threads_;
    std::vector<int> runnable_;
    std::vector<Waiting> waiting_;  // for barriers
    std::vector<Transfer> transfers_;
    int running_ = 0;
    bool finished_ = false;
    jmp_buf scheduler_;
    std::mt19937 random_{schedule()};

  public:
    const Index grid, size;
};
inline Launch* Launch::current = nullptr;

inline Thread& self() { return Launch::current->self(); }

// What every lane of the warp brings, [32]. All lanes must come.
template <class T>
std::vector<T> from_all_lanes(const char* purpose, const T& value) {
    Thread& thread = self();
    Meeting& warp = thread.block->warps[thread.thread.x / kLanes];
    const auto* places = Launch::current->meet(warp, thread.thread.x % kLanes, purpose, value);
    std::vector<T> values(kLanes);
    for (int i = 0; i < kLanes; ++i) std::memcpy(&values[i], places[i].data(), sizeof(T));
    return values;
}

// What every thread of the block brings.
inline const std::vector<unsigned char>* from_all_threads(bool value) {
    Thread& thread = self();
    return Launch::current->meet(thread.block->everyone, thread.thread.x, "__syncthreads", value);
}

inline void require_all_lanes(unsigned mask) {
    if (mask != ~0u) fail("only whole warps are emulated");
}

}  // namespace emulated

#define threadIdx (emulated::self().thread)
#define blockIdx (emulated::self().in_block)
#define gridDim (emulated::Launch::current->grid)
#define blockDim (emulated::Launch::current->size)

inline void __syncthreads() { emulated::from_all_threads(false); }
inline int __syncthreads_or(int value) {
    const auto* places = emulated::from_all_threads(value != 0);
    const auto brings = [](const std::vector<unsigned char>& bytes) { return bytes[0] != 0; };
    return std::any_of(places, places + emulated::self().block->everyone.members, brings);
}
inline void __syncwarp() { emulated::from_all_lanes("__syncwarp", 0); }

// The next three: of the group of `width` lanes that this one is in.
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = emulated::kLanes) {
    emulated::require_all_lanes(mask);
    const int own = threadIdx.x % emulated::kLanes;
    return emulated::from_all_lanes("__shfl_sync", value)[own / width * width + lane % width];
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, int lanes, int width = emulated::kLanes) {
    emulated::require_all_lanes(mask);
    const int own = threadIdx.x % emulated::kLanes;
    return emulated::from_all_lanes("__shfl_up_sync",
                                    value)[own % width < lanes ? own : own - lanes];
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, int lanes, int width = emulated::kLanes) {
    emulated::require_all_lanes(mask);
    const int own = threadIdx.x % emulated::kLanes;
    return emulated::from_all_lanes("__shfl_down_sync",
                                    value)[own % width + lanes >= width ? own : own + lanes];
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    emulated::require_all_lanes(mask);
    const unsigned lane = threadIdx.x % emulated::kLanes;
    return emulated::from_all_lanes("__shfl_xor_sync", value)[lane ^ lanes];
}

inline unsigned __ballot_sync(unsigned mask, int value) {
    emulated::require_all_lanes(mask);
    unsigned ballot = 0;
    const auto values = emulated::from_all_lanes("__ballot_sync", value);
    for (int i = 0; i < emulated::kLanes; ++i) ballot |= (values[i] != 0 ? 1u : 0u) << i;
    return ballot;
}

inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }

template <class T>
T atomicAdd(T* target, T value) {
    const T before = *target;
    *target = before + value;
    return before;
}

template <class T>
T atomicMax(T* target, T value) {
    const T before = *target;
    *target = std::max(before, value);
    return before;
}

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0;
enum cudaDeviceAttr {
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrMultiProcessorCount
};
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }

// A device with two multiprocessors; `device` 1 has less shared memory than device 0 (sm_90,
// sm_86), and device 2 is too old for tensor cores.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int device) {
    if (what == cudaDevAttrComputeCapabilityMajor) *value = device == 2 ? 7 : 9;
    if (what == cudaDevAttrMaxSharedMemoryPerBlockOptin)
        *value = device == 0 ? 227 << 10 : 99 << 10;
    if (what == cudaDevAttrMultiProcessorCount) *value = 2;
    return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, int) {
    *blocks = 1;
    return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
    std::memset(to, value, bytes);
    return cudaSuccess;
}
