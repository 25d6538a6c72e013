// The surfaces of FiLM-SIRENs in images, in one call: core/march.h on pools of rays.
//
// A thread has three groups of 16 lanes, each with rays of one image, that go through the network
// as one tile. A ray that ends is replaced from the group's stack; a pixel that must be split puts
// its finer rays there. A group without rays takes the next image, or half the stack of another
// group; a thread without any gets rays from a busy one. What becomes of a ray depends on nothing
// but the ray, so results are the same for any number of threads.
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "core/trace.h"
#include "cpu/film_siren.h"

namespace sdfgan::cpu {
namespace {

template <class T>
struct Ray {
    RayState<T> state;
    T direction[3];
    int32_t pixel;
    int16_t level;
    int16_t evaluations;
    uint8_t layers;  // complete ones
    OpenLayer<T> open;
};

// What the threads of a trace share: images that nobody has begun, and rays that busy threads give
// away to idle ones. All but the two counters are used under the mutex alone.
template <class T>
struct Shared {
    struct Parcel {
        int64_t image;
        std::vector<Ray<T>> rays;
    };
    std::atomic<int64_t> next_image{0};
    std::atomic<int> idle{0};
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Parcel> parcels;
    int working = 0;
    int64_t queries = 0, lanes = 0;
};

template <class T, class Form>
class Tracer {
    using Ray = cpu::Ray<T>;

    struct Group {
        int64_t image = 0;
        T origin[3] = {};
        int alive = 0;  // lanes [0, alive) of rays
        Ray rays[kGroup];
        std::vector<Ray> waiting;  // a stack: its last one is next
    };

  public:
    Tracer(const FilmSirenTrace<T>& p, Shared<T>& shared)
        : p_(p), shared_(shared), evaluator_(p.network) {}

    void run() {
        do {
            while (refill()) step();
        } while (wait_for_rays());
        const std::lock_guard<std::mutex> lock(shared_.mutex);
        shared_.queries += queries_;
        shared_.lanes += lanes_;
    }

  private:
    // Fills the lanes; false if there is nothing to do.
    bool refill() {
        bool any = false;
        for (Group& group : groups_) {
            if (group.waiting.empty() && group.alive < kGroup) find_rays(group);
            while (group.alive < kGroup && !group.waiting.empty()) {
                group.rays[group.alive++] = group.waiting.back();
                group.waiting.pop_back();
            }
            any |= group.alive > 0;
        }
        if (shared_.idle.load(std::memory_order_relaxed) > 0) give_away();
        return any;
    }

    // One evaluation of every ray in the lanes.
    void step() {
        alignas(64) T x[3][kTile], sdf[kTile];
        Group* used[kTileGroups];
        int64_t image[kTileGroups];
        int count = 0;
        for (Group& group : groups_) {
            if (group.alive == 0) continue;
            for (int i = 0; i < kGroup; ++i) {  // idle lanes repeat the first ray
                const Ray& ray = group.rays[i < group.alive ? i : 0];
                for (int axis = 0; axis < 3; ++axis) {
                    x[axis][count * kGroup + i] =
                        group.origin[axis] + ray.state.t * ray.direction[axis];
                }
            }
            queries_ += group.alive;
            image[count] = group.image;
            used[count++] = &group;
        }
        lanes_ += count * kGroup;
        if (p_.mirror.softness > 0) {
            for (int i = 0; i < count * kGroup; ++i) mirror_point(p_.mirror, x[0][i], x[2][i]);
        }
        evaluator_.sdf(x, image, count, sdf);
        for (int g = 0; g < count; ++g) {
            Group& group = *used[g];
            for (int i = group.alive - 1; i >= 0; --i) {  // downwards: the last ray fills a gap
                Ray& ray = group.rays[i];
                const TraceLevel<T>& level = p_.levels[ray.level];
                MarchRules<T> rules = level.rules;
                rules.slack *= 1 + ray.evaluations / level.patience;
                const bool last = ++ray.evaluations >= level.steps;
                if (advance(group, ray, sdf[g * kGroup + i], rules, last)) continue;
                finish(group, ray);
                ray = group.rays[--group.alive];
            }
        }
    }

    bool advance(const Group& group, Ray& ray, T sdf, const MarchRules<T>& rules, bool last) {
        if (!p_.layers.layers || ray.level + 1 < p_.levels.size) {
            return advance_or_end(ray.state, sdf, rules, NoLayers(), last);
        }
        const int64_t size = p_.levels[ray.level].size, pixels = size * size;
        T* const out = p_.layers.layers + group.image * pixels + ray.pixel;
        const Layers<T> layers{ray.open, ray.layers, p_.layers.most, out,
                               p_.network.images * pixels};
        return advance_or_end(ray.state, sdf, rules, layers, last);
    }

    // Splits a pixel, or writes what became of its ray.
    void finish(Group& group, const Ray& ray) {
        const TraceLevel<T>& level = p_.levels[ray.level];
        const RayState<T>& state = ray.state;
        if (ray.level + 1 < p_.levels.size) {
            const Split<T> fine = split_pixel(state, level.reach);
            if (fine.split) split(group, ray, fine.start, fine.slope);
            return;
        }
        const int64_t pixel = group.image * level.size * level.size + ray.pixel;
        const bool hit = state.status == kHit || state.status >= kRefining;
        p_.status[pixel] = hit ? uint8_t{kHit} : state.status;
        p_.distance[pixel] = hit ? state.t : state.nearest_t;
        p_.nearest[pixel] = state.nearest;
        if (p_.layers.layers) p_.layers.count[pixel] = ray.layers;
    }

    void split(Group& group, const Ray& ray, T start, T slope) {
        const int64_t coarse = p_.levels[ray.level].size, fine = p_.levels[ray.level + 1].size;
        const int64_t scale = fine / coarse;
        const int64_t row = ray.pixel / coarse * scale, column = ray.pixel % coarse * scale;
        for (int64_t y = row; y < row + scale; ++y) {
            for (int64_t x = column; x < column + scale; ++x) {
                add_ray(group, ray.level + 1, x, y, start, slope);
            }
        }
    }

    // Unless it misses the ball.
    void add_ray(Group& group, int level_index, int64_t column, int64_t row, T start, T slope) {
        const TraceLevel<T>& level = p_.levels[level_index];
        const PixelRay<T> pixel = pixel_ray(p_.cameras + 12 * group.image, column, row, level.size,
                                            level.size, p_.plane_distance, level.radius);
        Ray ray;
        ray.pixel = static_cast<int32_t>(row * level.size + column);
        ray.level = static_cast<int16_t>(level_index);
        ray.evaluations = 0;
        T offset = level.start;
        ray.layers = 0;
        ray.open = Layers<T>::none();
        if (p_.jitter && level_index + 1 == p_.levels.size) {
            offset += p_.jitter[group.image * level.size * level.size + ray.pixel];
        }
        ray.state = start_march(pixel, Split<T>{true, start, slope}, offset);
        if (ray.state.status == kUntraced) return;
        for (int axis = 0; axis < 3; ++axis) ray.direction[axis] = pixel.direction[axis];
        group.waiting.push_back(ray);
    }

    void set_image(Group& group, int64_t image) {
        group.image = image;
        for (int axis = 0; axis < 3; ++axis) {
            group.origin[axis] = p_.cameras[12 * image + 4 * axis + 3];
        }
    }

    void find_rays(Group& group) {
        if (group.alive == 0) {
            while (group.waiting.empty()) {
                const int64_t image = shared_.next_image.fetch_add(1);
                if (image >= p_.network.images) break;
                set_image(group, image);
                const int64_t size = p_.levels[0].size;
                for (int64_t row = 0; row < size; ++row) {
                    for (int64_t column = 0; column < size; ++column) {
                        add_ray(group, 0, column, row, 0, 1);
                    }
                }
            }
        }
        if (group.waiting.empty()) {
            Group* const other = fullest(&group);
            if (!other || (group.alive > 0 && other->image != group.image)) return;
            set_image(group, other->image);
            move_half(other->waiting, group.waiting);
        }
    }

    // The group with most waiting rays, of the same image as `asking` if that has rays; or null.
    Group* fullest(const Group* asking) {
        Group* best = nullptr;
        for (Group& group : groups_) {
            if (&group == asking || group.waiting.size() < kGroup) continue;
            if (asking && asking->alive > 0 && group.image != asking->image) continue;
            if (!best || group.waiting.size() > best->waiting.size()) best = &group;
        }
        return best;
    }

    // The lower half: coarse rays lie there, from which the most work grows.
    static void move_half(std::vector<Ray>& from, std::vector<Ray>& to) {
        const auto middle = from.begin() + (from.size() + 1) / 2;
        to.assign(from.begin(), middle);
        from.erase(from.begin(), middle);
    }

    void give_away() {
        Group* const group = fullest(nullptr);
        if (!group || group->waiting.size() < 2 * kGroup) return;
        const std::lock_guard<std::mutex> lock(shared_.mutex);
        if (static_cast<int>(shared_.parcels.size()) >= shared_.idle.load()) return;
        shared_.parcels.push_back({group->image, {}});
        move_half(group->waiting, shared_.parcels.back().rays);
        shared_.changed.notify_one();
    }

    // True with a parcel of rays; false when no thread has any left.
    bool wait_for_rays() {
        std::unique_lock<std::mutex> lock(shared_.mutex);
        --shared_.working;
        ++shared_.idle;
        shared_.changed.wait(lock,
                             [&] { return !shared_.parcels.empty() || shared_.working == 0; });
        --shared_.idle;
        if (shared_.parcels.empty()) {
            shared_.changed.notify_all();
            return false;
        }
        ++shared_.working;
        Group& group = groups_[0];
        set_image(group, shared_.parcels.back().image);
        group.waiting = std::move(shared_.parcels.back().rays);
        shared_.parcels.pop_back();
        return true;
    }

    const FilmSirenTrace<T> p_;
    Shared<T>& shared_;
    Evaluator<T, Form> evaluator_;
    Group groups_[kTileGroups];
    int64_t queries_ = 0, lanes_ = 0;
};

template <class T, class Form>
void trace(const FilmSirenTrace<T>& p, int threads) {
    struct Context {
        const FilmSirenTrace<T>& p;
        Shared<T> shared;
    } context{p, {}};
    run_threads(
        threads, &context, [](void* c, int n) { static_cast<Context*>(c)->shared.working = n; },
        [](void* c) {
            const auto context = static_cast<Context*>(c);
            Tracer<T, Form>(context->p, context->shared).run();
        });
    p.counts[0] = context.shared.queries;
    p.counts[1] = context.shared.lanes;
}

}  // namespace

// Plain functions: table.cpp puts them into the table of this instruction set.
void SDFGAN_LEVEL(film_siren_trace_)(const FilmSirenTrace<float>& p, int threads) {
    p.network.matrices == Matrices::kBf16 ? trace<float, Bf16>(p, threads)
                                           : trace<float, Full<float>>(p, threads);
}
void SDFGAN_LEVEL(film_siren_trace_)(const FilmSirenTrace<double>& p, int threads) {
    trace<double, Full<double>>(p, threads);
}

}  // namespace sdfgan::cpu
