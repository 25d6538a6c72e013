// The CPU kernels without Python, on random inputs, at every instruction set of this CPU: for
// sanitizers and valgrind (tests/native/test_native.py). Exit status 1 where results depend on the
// number of threads or of the instruction set, or where a number is not finite.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/launch.h"

using namespace sdfgan;

namespace {

std::mt19937 random_bits(0);

template <class T>
std::vector<T> uniform(int64_t count, double low, double high) {
    std::uniform_real_distribution<double> distribution(low, high);
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(distribution(random_bits));
    return values;
}

void require(bool condition, const char* what) {
    if (condition) return;
    std::printf("failed: %s (%s)\n", what, cpu::simd());
    std::exit(1);
}

template <class T>
bool finite(const std::vector<T>& values) {
    for (T value : values) {
        if (!std::isfinite(value)) return false;
    }
    return true;
}

// The top half of a float, rounded towards zero.
std::vector<uint16_t> to_bf16(const std::vector<float>& values) {
    std::vector<uint16_t> halves(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
        uint32_t bits;
        std::memcpy(&bits, &values[i], 4);
        halves[i] = static_cast<uint16_t>(bits >> 16);
    }
    return halves;
}

// Random weights; any order of the panels is as good as any other.
template <class T>
struct Network {
    FilmSiren<T> view;
    std::vector<T> first, hidden, transposed, sdf_head, texture_head, constants, scale, shift;
    std::vector<uint16_t> hidden_half, transposed_half;

    Network(int64_t images, int64_t width, int trunk, int sdf, int texture, bool bf16) {
        const int64_t layers = trunk + sdf + texture;
        const double bound = 0.1 * std::sqrt(6.0 / static_cast<double>(width));
        first = uniform<T>(3 * width, -0.3, 0.3);
        hidden = uniform<T>((layers - 1) * width * width, -bound, bound);
        transposed = uniform<T>((layers - 1) * width * width, -bound, bound);
        sdf_head = uniform<T>(width, -0.1 / std::sqrt(width), 0.1 / std::sqrt(width));
        texture_head = uniform<T>(3 * width, -0.1, 0.1);
        constants = {T(0.01), T(-0.5)};
        scale = uniform<T>(images * layers * width, 7, 13);
        shift = uniform<T>(images * layers * width, -3, 3);
        view = {first.data(),
                hidden.data(),
                transposed.data(),
                sdf_head.data(),
                texture_head.data(),
                constants.data(),
                scale.data(),
                shift.data(),
                nullptr,
                images,
                width,
                trunk,
                sdf,
                texture,
                bf16 ? Matrices::kBf16 : Matrices::kFull};
        if constexpr (sizeof(T) == 4) {
            if (bf16) {
                hidden_half = to_bf16(hidden);
                transposed_half = to_bf16(transposed);
                view.hidden = hidden_half.data();
                view.transposed = transposed_half.data();
            }
        }
    }
};

template <class T>
void evaluate(const Network<T>& network, int64_t count) {
    std::vector<T> points = uniform<T>(3 * count, -1, 1), reference;
    std::vector<int64_t> image(count);
    for (int64_t i = 0; i < count; ++i) image[i] = i * network.view.images / count;
    for (int threads : {1, 2, 5}) {
        std::vector<T> sdf(count), gradient(3 * count), texture(3 * count);
        cpu::launch(FilmSirenSample<T>{network.view, points.data(), image.data(), sdf.data(),
                                       nullptr, nullptr, count},
                    {-1, nullptr, threads});
        require(finite(sdf), "a value is not finite");
        require(reference.empty() || sdf == reference, "values depend on the number of threads");
        reference = sdf;
        cpu::launch(FilmSirenSample<T>{network.view, points.data(), image.data(), sdf.data(),
                                       gradient.data(), texture.data(), count},
                    {-1, nullptr, threads});
        require(finite(gradient) && finite(texture), "a gradient or texture is not finite");
    }
}

template <class T>
void differentiate(const Network<T>& network, int64_t count) {
    const FilmSiren<T>& view = network.view;
    const std::vector<T> points = uniform<T>(3 * count, -1, 1), s = uniform<T>(count, -1, 1);
    const std::vector<T> g = uniform<T>(3 * count, -1, 1), t = uniform<T>(3 * count, -1, 1);
    std::vector<int64_t> image(count);
    for (int64_t i = 0; i < count; ++i) image[i] = i * i % view.images;
    std::vector<T> reference;
    for (int threads : {1, 2, 5}) {
        std::vector<T> by_points(3 * count), first(network.first), hidden(network.hidden),
            sdf_head(network.sdf_head), texture_head(network.texture_head),
            constants(network.constants), scale(network.scale), shift(network.shift);
        cpu::launch(
            FilmSirenBackward<T>{view, points.data(), image.data(), s.data(), g.data(), t.data(),
                                 by_points.data(), first.data(), hidden.data(), sdf_head.data(),
                                 texture_head.data(), constants.data(), scale.data(), shift.data(),
                                 nullptr, nullptr, nullptr, count},
            {-1, nullptr, threads});
        std::vector<T> all;
        for (const auto* part :
             {&by_points, &first, &hidden, &sdf_head, &texture_head, &constants, &scale, &shift}) {
            all.insert(all.end(), part->begin(), part->end());
        }
        require(finite(all), "a gradient by the network is not finite");
        require(reference.empty() || all == reference, "gradients depend on the number of threads");
        reference = all;
    }
}

// A perceptron and its gradients.
template <class T>
void perceptron(const std::vector<int64_t>& sizes, int64_t count, bool sine) {
    std::vector<std::vector<T>> layers;  // weights, then biases
    std::vector<const T*> weights, biases;
    int64_t numbers = 0;
    for (size_t i = 0; i + 1 < sizes.size(); ++i) {
        numbers += (sizes[i] + 1) * sizes[i + 1];
        weights.push_back(layers.emplace_back(uniform<T>(sizes[i] * sizes[i + 1], -1, 1)).data());
        biases.push_back(layers.emplace_back(uniform<T>(sizes[i + 1], -1, 1)).data());
    }
    const int64_t depth = static_cast<int64_t>(weights.size());
    const std::vector<T> x = uniform<T>(count * sizes[0], -1, 1);
    const std::vector<T> gradient = uniform<T>(count * sizes.back(), -1, 1);
    std::vector<T> reference;
    for (int threads : {1, 2, 5}) {
        std::vector<T> all(count * sizes.back()), by_x(x.size()), by_layers(numbers);
        const Perceptron<T> network{x.data(),
                                    {weights.data(), depth},
                                    {biases.data(), depth},
                                    all.data(),
                                    count,
                                    {sizes.data(), depth + 1},
                                    sine,
                                    T(0.1)};
        cpu::launch(network, {-1, nullptr, threads});
        cpu::launch(PerceptronBackward<T>{network, gradient.data(), by_x.data(), by_layers.data()},
                    {-1, nullptr, threads});
        for (const auto* part : {&by_x, &by_layers}) {
            all.insert(all.end(), part->begin(), part->end());
        }
        require(finite(all), "a perceptron's value or gradient is not finite");
        require(reference.empty() || all == reference, "perceptrons depend on the threads");
        reference = all;
    }
}

// Cameras on a circle around the origin that look at it; [images, 3, 4].
template <class T>
std::vector<T> circle_of_cameras(int64_t images, double distance) {
    std::vector<T> cameras;
    for (int64_t i = 0; i < images; ++i) {
        const double s = std::sin(0.9 * i), c = std::cos(0.9 * i);
        for (double value : {c, 0., s, distance * s, 0., 1., 0., 0., -s, 0., c, distance * c}) {
            cameras.push_back(static_cast<T>(value));
        }
    }
    return cameras;
}

template <class T>
void trace(const Network<T>& network, int64_t size, int most = 0) {
    const int64_t images = network.view.images, pixels = images * size * size;
    const double distance = 4.5;
    const std::vector<T> cameras = circle_of_cameras<T>(images, distance);
    const T cone = T(0.1), never = std::numeric_limits<T>::infinity();
    const std::vector<TraceLevel<T>> levels = {
        {size / 4, 24, {T(0.05), cone, 1 / (1 + cone), T(0.88), 0, -1, 0}, T(1.6), 0, 0, never},
        {size, 300, {T(1e-4), -most * T(0.004), 1, 1, T(0.005), 8, T(0.01)}, 1, 0, 0, 8}};
    const std::vector<T> jitter = uniform<T>(pixels, 0, 0.01);
    std::vector<T> reference, layers_reference;
    for (int threads : {1, 2, 3, 8}) {
        std::vector<uint8_t> status(pixels, kUntraced), layer_count(pixels);
        std::vector<T> depth(pixels), nearest(pixels), layers(most * 4 * pixels);
        int64_t counts[2];
        const LayerArrays<T> collected{most ? layers.data() : nullptr, layer_count.data(), nullptr,
                                       most};
        cpu::launch(FilmSirenTrace<T>{network.view,
                                      cameras.data(),
                                      {levels.data(), static_cast<int64_t>(levels.size())},
                                      jitter.data(),
                                      status.data(),
                                      depth.data(),
                                      nearest.data(),
                                      counts,
                                      collected,
                                      nullptr,
                                      T(distance),
                                      {}},
                    {-1, nullptr, threads});
        int64_t found = 0;
        for (int64_t i = 0; i < pixels; ++i) {
            found += layer_count[i];
            require(layer_count[i] <= most, "more layers than there may be");
            for (int l = 0; l < layer_count[i]; ++l) {
                require(std::isfinite(layers[4 * l * pixels + i]), "a layer is nowhere");
                layers[(4 * l + 3) * pixels + i] = 0;  // may be NaN, which equals nothing
            }
        }
        require(most == 0 || images == 0 || found > 0, "no ray has a layer");
        require(layers_reference.empty() || layers == layers_reference,
                "layers depend on the number of threads");
        layers_reference = layers;
        int64_t hits = 0;
        for (uint8_t s : status) hits += s == kHit;
        require(images == 0 || (hits > 0 && hits < pixels), "all pixels hit, or none");
        require(finite(depth), "a depth is not finite");
        require(reference.empty() || depth == reference, "depths depend on the number of threads");
        reference = depth;
    }
}

template <class T>
void others(int64_t rays) {
    const std::vector<T> x = uniform<T>(3 * rays, -2, 2);
    std::vector<T> encoded(21 * rays);
    cpu::launch(PositionalEncoding<T>{x.data(), encoded.data(), rays, 3, 21, 3, true, false},
                {-1, nullptr, 3});
    require(finite(encoded), "an encoding is not finite");

    std::vector<T> edges, weights = uniform<T>(7 * rays, 0, 1), u = uniform<T>(5, 0, 1);
    for (int64_t i = 0; i < 8 * rays; ++i) edges.push_back(static_cast<T>(i % 8));
    std::sort(u.begin(), u.end());
    std::vector<T> samples(5 * rays);
    cpu::launch(SamplePdf<T>{edges.data(), weights.data(), u.data(), samples.data(), rays, 7, 5, 0},
                {-1, nullptr, 2});
    require(finite(samples), "a sample is not finite");

    const std::vector<T> cameras = circle_of_cameras<T>(2, 4.5), radii{1, T(0.8)};
    std::vector<int64_t> pixels(rays);
    for (int64_t i = 0; i < rays; ++i) pixels[i] = i % (2 * 32 * 32);
    std::vector<T> origins(3 * rays), directions(3 * rays), near(rays), far(rays);
    cpu::launch(
        GenerateRays<T>{cameras.data(), pixels.data(), origins.data(), directions.data(),
                        near.data(), far.data(), rays, 2, 32, 32, T(4.5), T(1), radii.data()},
        {-1, nullptr, 2});

    const int64_t side = 1 + rays / 500, level_rays = 2 * side * side;
    std::vector<T> o(3 * level_rays), d(3 * level_rays), s(level_rays), f(level_rays);
    std::vector<T> level_state(5 * level_rays), level_points(3 * level_rays);
    std::vector<uint8_t> level_status(level_rays);
    std::vector<int32_t> level_alive(level_rays);
    int32_t level_count = -1;
    cpu::launch(StartLevel<T>{cameras.data(),
                              nullptr,
                              nullptr,
                              nullptr,
                              o.data(),
                              d.data(),
                              s.data(),
                              f.data(),
                              level_state.data(),
                              level_status.data(),
                              level_points.data(),
                              level_alive.data(),
                              &level_count,
                              nullptr,
                              0,
                              2,
                              side,
                              1,
                              T(4.5),
                              T(1),
                              0,
                              0,
                              radii.data()},
                {-1, nullptr, 3});
    require(level_count > 0 && level_count <= level_rays, "no ray meets the ball");

    std::vector<int32_t> alive(rays), alive_out(rays);
    for (int64_t i = 0; i < rays; ++i) alive[i] = static_cast<int32_t>(i);
    const int32_t count = static_cast<int32_t>(rays);
    int32_t count_out = -1;
    std::vector<T> values = uniform<T>(rays, -0.1, 1), state = uniform<T>(5 * rays, 0, 1);
    std::vector<T> points(3 * rays);
    std::vector<uint8_t> status(rays, kMarching), layer_count(rays);
    std::vector<T> layers(8 * rays), open(5 * rays);
    cpu::launch(TraceStep<T>{values.data(),
                             alive.data(),
                             &count,
                             origins.data(),
                             directions.data(),
                             far.data(),
                             state.data(),
                             status.data(),
                             points.data(),
                             alive_out.data(),
                             &count_out,
                             nullptr,
                             0,
                             rays,
                             rays,
                             {T(0.01), 0, 1, T(0.9), T(0.01), 4, T(0.01)},
                             {layers.data(), layer_count.data(), open.data(), 2},
                             true},
                {-1, nullptr, 4});
    require(count_out == 0, "a ray goes on after the last step");
}

// Random triangles, some without area, and points, some of them not finite.
void mesh(int64_t faces, int64_t points) {
    const std::vector<float> vertices = uniform<float>(300, -1, 1);
    std::vector<int32_t> corners(3 * faces);
    for (int32_t& corner : corners) corner = static_cast<int32_t>(random_bits() % 100);
    std::vector<float> where = uniform<float>(3 * points, -2, 2);
    for (int64_t i = 0; i < points; i += 50)
        where[3 * i + 1] = std::numeric_limits<float>::infinity();
    std::vector<float> first;
    for (int threads : {1, 4}) {
        const auto tree = cpu::build_mesh_tree(vertices.data(), corners.data(), faces, threads);
        const bool closed = true;  // it is not, but so points share what they find
        std::vector<float> distance(points), closest(3 * points), winding(points);
        std::vector<int32_t> face(points);
        MeshDistance p;
        p.tree = {vertices.data(),
                  corners.data(),
                  tree.nodes.data(),
                  tree.children.data(),
                  tree.leaves.data(),
                  tree.leaf_faces.data(),
                  &closed};
        p.points = where.data();
        p.order = nullptr;
        p.distance = distance.data();
        p.face = face.data();
        p.closest = closest.data();
        p.winding = winding.data();
        p.count = points;
        cpu::launch(p, {-1, nullptr, threads});
        for (int64_t i = 0; i < points; ++i) {
            require((face[i] < 0) == (i % 50 == 0), "only points that are not finite have no face");
            if (face[i] < 0) distance[i] = winding[i] = 0;
        }
        require(finite(distance) && finite(winding), "distances are finite");
        distance.insert(distance.end(), winding.begin(), winding.end());
        if (threads == 1) first = distance;
        require(distance == first, "distances do not depend on threads");
    }
}

// Rays through a grid, some of them with infinite ends: counted, written, and followed by light.
template <class T>
void grid_march(int64_t rays) {
    const int64_t side = 5;
    const std::vector<T> origins = uniform<T>(3 * rays, -1, 1), jitter = uniform<T>(rays, 0, 1);
    const std::vector<T> directions = uniform<T>(3 * rays, -1, 1);
    std::vector<T> near(rays, T(0.1)), far = uniform<T>(rays, 0, 3), depth(rays);
    for (int64_t i = 0; i < rays; i += 50) near[i] = std::numeric_limits<T>::infinity();
    std::vector<char> cells(side * side * side);
    for (char& cell : cells) cell = static_cast<char>(random_bits() % 2);
    const bool* const occupied = reinterpret_cast<const bool*>(cells.data());
    for (const T even : {T(0.65), std::numeric_limits<T>::infinity()}) {
        const GridMarch<T> march{origins.data(), directions.data(), near.data(), far.data(),
                                 jitter.data(),  occupied,          nullptr,     rays,
                                 side,           T(0.03),           even};
        std::vector<int64_t> offsets(rays + 1), reached(rays + 1);
        std::vector<int32_t> next(rays);
        cpu::launch(MarchCount<T>{march, offsets.data(), next.data(), 60}, {-1, nullptr, 4});
        for (int64_t ray = 0; ray < rays; ++ray) offsets[ray + 1] += offsets[ray];
        const int64_t total = offsets[rays];
        const RaySamples at{offsets.data(), rays, total};
        std::vector<T> points(3 * total), along(3 * total), distances(total), deltas(total);
        cpu::launch(MarchSamples<T>{march, at, points.data(), along.data(), distances.data(),
                                    deltas.data()},
                    {-1, nullptr, 3});
        require(finite(points) && finite(deltas), "samples are finite");
        std::fill(depth.begin(), depth.end(), T(0));
        const std::vector<T> densities = uniform<T>(total, 0, 9);
        cpu::launch(MarchReached<T>{at, densities.data(), deltas.data(), depth.data(),
                                    reached.data(), next.data(), T(0.5)},
                    {-1, nullptr, 4});
        for (int64_t ray = 0; ray < rays; ++ray) {
            require(reached[ray + 1] <= offsets[ray + 1] - offsets[ray], "light reaches samples");
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> levels(argv + 1, argv + argc);
    if (levels.empty()) levels = {"base", "avx2", "avx512", "avx512bf16"};
    for (const std::string& level : levels) {
        try {
            cpu::set_simd(level.c_str());
        } catch (const std::exception&) {
            std::printf("%s: not on this CPU\n", level.c_str());
            continue;
        }
        for (int64_t width : {16, 48, 64}) {
            for (bool bf16 : {false, true}) evaluate(Network<float>(3, width, 2, 1, 1, bf16), 157);
            evaluate(Network<double>(2, width, 1, 2, 0, false), 61);
            differentiate(Network<float>(3, width, 2, 1, 1, false), 457);
            differentiate(Network<double>(2, width, 1, 2, 0, false), 61);
        }
        for (int64_t count : {0, 1, 47, 1000}) {
            perceptron<float>({31, 32, 32, 3}, count, false);
            perceptron<float>({3, 100, 1}, count, true);
            perceptron<double>({5, 9, 17, 2}, count, false);
        }
        for (bool bf16 : {false, true}) trace(Network<float>(4, 32, 2, 1, 1, bf16), 32);
        for (int most : {1, 3}) trace(Network<float>(4, 32, 2, 1, 1, false), 32, most);
        trace(Network<double>(2, 16, 1, 1, 0, false), 16);
        trace(Network<float>(0, 16, 1, 1, 1, false), 16);
        for (int64_t rays : {0, 1, 1000, 20000}) {
            others<float>(rays);
            others<double>(rays);
            grid_march<float>(rays);
            grid_march<double>(rays);
        }
        for (int64_t faces : {1, 9, 3000}) mesh(faces, 2000);
        std::printf("%s: clean\n", level.c_str());
    }
}
