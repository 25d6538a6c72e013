// Cuts the points of a FilmSirenBackward into tiles and slots, and adds up what the slots found.
#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/table.h"

namespace sdfgan::cpu {
namespace {

constexpr int64_t kSlots = 16;          // at most; each has sums as large as the network
constexpr int64_t kTilesPerSlot = 4;    // at least, or adding up the slots costs more than it saves
constexpr int64_t kSumGrain = 1 << 14;  // values per thread

// Points by image, each image's in their order; those of no image are left out.
template <class T>
std::vector<int64_t> points_by_image(const FilmSirenBackward<T>& p, std::vector<int64_t>& begin) {
    const int64_t images = p.network.images;
    const auto known = [&](int64_t i) { return p.image[i] >= 0 && p.image[i] < images; };
    begin.assign(images + 1, 0);
    for (int64_t i = 0; i < p.count; ++i) {
        if (known(i)) ++begin[p.image[i] + 1];
    }
    for (int64_t b = 0; b < images; ++b) begin[b + 1] += begin[b];
    std::vector<int64_t> order(begin[images]), next(begin.begin(), begin.end() - 1);
    const T nan = std::numeric_limits<T>::quiet_NaN();
    for (int64_t i = 0; i < p.count; ++i) {
        if (known(i)) {
            order[next[p.image[i]]++] = i;
        } else {
            std::fill_n(p.grad_points + 3 * i, 3, nan);
        }
    }
    return order;
}

// Tiles of at most `size` points of one image.
std::vector<BackwardTile> cut(const std::vector<int64_t>& begin, int64_t size) {
    std::vector<BackwardTile> tiles;
    for (size_t b = 0; b + 1 < begin.size(); ++b) {
        for (int64_t at = begin[b]; at < begin[b + 1]; at += size) {
            const int64_t end = std::min(at + size, begin[b + 1]);
            tiles.push_back({at, end, static_cast<int64_t>(b), 0});
        }
    }
    return tiles;
}

// Gives each image of each slot an entry; returns how many there are.
int64_t number_entries(std::vector<BackwardTile>& tiles, int64_t slots) {
    int64_t entries = 0;
    for (int64_t slot = 0; slot < slots; ++slot) {
        const int64_t count = static_cast<int64_t>(tiles.size());
        const int64_t begin = slot * count / slots, end = (slot + 1) * count / slots;
        for (int64_t i = begin; i < end; ++i) {
            if (i == begin || tiles[i].image != tiles[i - 1].image) ++entries;
            tiles[i].entry = entries - 1;
        }
    }
    return entries;
}

// The matrices' gradient, packed, from sums that lie as the kernel says.
template <class T>
void pack_matrices(const T* sums, int64_t matrices, int64_t width, int64_t lanes, int threads,
                   T* out) {
    constexpr int64_t kPanel = 8;  // outputs, as sdfgan.ops.pack_matrices has them
    parallel_for(matrices * width / kPanel, 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel) {
            const int64_t matrix = panel * kPanel / width * width * width;
            const int64_t n = panel * kPanel % width;
            for (int64_t k = 0; k < width; ++k) {
                const T* const in = sums + matrix + k / lanes * lanes * width + k % lanes;
                for (int64_t i = 0; i < kPanel; ++i) {
                    out[(panel * width + k) * kPanel + i] = in[(n + i) * lanes];
                }
            }
        }
    });
}

}  // namespace

template <class T>
void launch(const FilmSirenBackward<T>& p, const Where& where) {
    const FilmSiren<T>& network = p.network;
    const int64_t width = network.width;
    const int64_t layers = network.trunk_layers + network.sdf_layers + network.texture_layers;
    std::vector<int64_t> begin;
    const std::vector<int64_t> order = points_by_image(p, begin);
    std::vector<BackwardTile> tiles = cut(begin, kTile);
    const int64_t count = static_cast<int64_t>(tiles.size());
    const int64_t slots = std::clamp<int64_t>(count / kTilesPerSlot, count > 0, kSlots);
    const int64_t entries = number_entries(tiles, slots);

    const int64_t hidden = (layers - 1) * width * width, size = hidden + 7 * width + 2;
    const std::unique_ptr<T[]> sums(new T[std::max<int64_t>(slots, 1) * size]);
    const int64_t film = layers * width;
    const std::unique_ptr<T[]> film_sums(new T[entries * 2 * film]);
    BackwardWork<T> work{order.data(), tiles.data(), count,           slots,
                         sums.get(),   size,         film_sums.get(), 1};
    if (slots > 0) {
        kernels<T>().film_siren_backward(p, work, where.threads);
    } else {
        std::fill_n(sums.get(), size, T(0));
    }
    parallel_for(size, kSumGrain, where.threads, [&](int64_t first, int64_t last) {
        for (int64_t slot = 1; slot < slots; ++slot) {
            const T* const other = sums.get() + slot * size;
            for (int64_t i = first; i < last; ++i) sums[i] += other[i];
        }
    });

    pack_matrices(sums.get(), layers - 1, width, work.lanes, where.threads, p.grad_hidden);
    const T* at = sums.get() + hidden;
    for (int64_t n = 0; n < width; ++n) {
        for (int axis = 0; axis < 3; ++axis) p.grad_first[3 * n + axis] = at[axis * width + n];
    }
    std::copy_n(at + 3 * width, width, p.grad_sdf_head);
    std::copy_n(at + 4 * width, 3 * width, p.grad_texture_head);
    std::copy_n(at + 7 * width, 2, p.grad_constants);

    std::fill_n(p.grad_scale, network.images * film, T(0));
    std::fill_n(p.grad_shift, network.images * film, T(0));
    for (int64_t i = 0; i < count; ++i) {
        if (i > 0 && tiles[i].entry == tiles[i - 1].entry) continue;
        const T* const entry = film_sums.get() + tiles[i].entry * 2 * film;
        T* const scale = p.grad_scale + tiles[i].image * film;
        T* const shift = p.grad_shift + tiles[i].image * film;
        for (int64_t j = 0; j < film; ++j) scale[j] += entry[j], shift[j] += entry[film + j];
    }
}

SDFGAN_INSTANTIATE_LAUNCH(FilmSirenBackward)

}  // namespace sdfgan::cpu
