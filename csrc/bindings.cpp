// The Python module sdfgan._C and the only file that knows Python. Tensors come as addresses, and
// nothing is checked here: sdfgan/ops does that. Every kernel takes `where` = (device or -1 for the
// CPU, CUDA stream, threads) first.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace py = pybind11;

namespace sdfgan {
namespace {

using Address = std::uintptr_t;
using WhereTuple = std::tuple<int, Address, int>;

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

template <class Parameters>
void run(const Parameters& parameters, const WhereTuple& tuple) {
    const Where where{std::get<0>(tuple), pointer<void>(std::get<1>(tuple)), std::get<2>(tuple)};
    py::gil_scoped_release release;
    if (where.device < 0) {
        cpu::launch(parameters, where);
    } else {
#ifdef SDFGAN_CUDA
        cuda::launch(parameters, where);
#else
        throw std::runtime_error("sdfgan was built without CUDA");
#endif
    }
}

template <class T>
void positional_encoding(WhereTuple where, Address x, Address out, int64_t points, int64_t dims,
                         int octaves, bool include_input, bool times_pi) {
    PositionalEncoding<T> p;
    p.x = pointer<const T>(x);
    p.out = pointer<T>(out);
    p.points = points;
    p.dims = dims;
    p.width = (include_input + 2 * octaves) * dims;
    p.octaves = octaves;
    p.include_input = include_input;
    p.times_pi = times_pi;
    run(p, where);
}

template <class T>
void sample_pdf(WhereTuple where, Address edges, Address weights, Address u, Address out,
                int64_t rays, int64_t bins, int64_t samples, int64_t u_stride) {
    SamplePdf<T> p;
    p.edges = pointer<const T>(edges);
    p.weights = pointer<const T>(weights);
    p.u = pointer<const T>(u);
    p.out = pointer<T>(out);
    p.rays = rays;
    p.bins = bins;
    p.samples = samples;
    p.u_stride = u_stride;
    run(p, where);
}

template <class T>
void generate_rays(WhereTuple where, Address cameras, Address pixels, Address origins,
                   Address directions, Address near, Address far, int64_t rays,
                   int64_t camera_count, int64_t height, int64_t width, double plane_distance,
                   double radius, Address radii) {
    GenerateRays<T> p;
    p.cameras = pointer<const T>(cameras);
    p.pixels = pointer<const int64_t>(pixels);
    p.origins = pointer<T>(origins);
    p.directions = pointer<T>(directions);
    p.near = pointer<T>(near);
    p.far = pointer<T>(far);
    p.rays = rays;
    p.camera_count = camera_count;
    p.height = height;
    p.width = width;
    p.plane_distance = static_cast<T>(plane_distance);
    p.radius = static_cast<T>(radius);
    p.radii = pointer<const T>(radii);
    run(p, where);
}

using RulesTuple =
    std::tuple<double, double, double, double, double, int, double>;  // ops.MarchRules

template <class T>
MarchRules<T> rules_of(const RulesTuple& tuple) {
    const auto [threshold, cone_slope, lipschitz, relaxation, slack, refine, footprint] = tuple;
    return {static_cast<T>(threshold),  static_cast<T>(cone_slope), static_cast<T>(1 / lipschitz),
            static_cast<T>(relaxation), static_cast<T>(slack),      refine,
            static_cast<T>(footprint)};
}

using LayersTuple = std::tuple<Address, Address, Address, int>;  // members of LayerArrays

template <class T>
LayerArrays<T> layers_of(const LayersTuple& tuple) {
    const auto [layers, count, open, most] = tuple;
    return {pointer<T>(layers), pointer<uint8_t>(count), pointer<T>(open), most};
}

template <class T>
void trace_step(WhereTuple where, Address values, Address alive, Address count, Address origins,
                Address directions, Address far, Address state, Address status, Address points,
                Address alive_out, Address count_out, Address workspace, int64_t workspace_size,
                int64_t entries, int64_t rays, const RulesTuple& rules, const LayersTuple& layers,
                bool last) {
    TraceStep<T> p;
    p.values = pointer<const T>(values);
    p.alive = pointer<const int32_t>(alive);
    p.count = pointer<const int32_t>(count);
    p.origins = pointer<const T>(origins);
    p.directions = pointer<const T>(directions);
    p.far = pointer<const T>(far);
    p.state = pointer<T>(state);
    p.status = pointer<uint8_t>(status);
    p.points = pointer<T>(points);
    p.alive_out = pointer<int32_t>(alive_out);
    p.count_out = pointer<int32_t>(count_out);
    p.workspace = pointer<void>(workspace);
    p.workspace_size = workspace_size;
    p.entries = entries;
    p.rays = rays;
    p.rules = rules_of<T>(rules);
    p.layers = layers_of<T>(layers);
    p.last = last;
    run(p, where);
}

template <class T>
void start_level(WhereTuple where, Address cameras, Address parent_state, Address parent_status,
                 Address jitter, Address origins, Address directions, Address start, Address far,
                 Address state, Address status, Address points, Address alive, Address count,
                 Address workspace, int64_t workspace_size, int64_t images, int64_t size,
                 int64_t parent_size, double plane_distance, double radius, double offset,
                 double parent_reach, Address radii) {
    StartLevel<T> p;
    p.cameras = pointer<const T>(cameras);
    p.parent_state = pointer<const T>(parent_state);
    p.parent_status = pointer<const uint8_t>(parent_status);
    p.jitter = pointer<const T>(jitter);
    p.origins = pointer<T>(origins);
    p.directions = pointer<T>(directions);
    p.start = pointer<T>(start);
    p.far = pointer<T>(far);
    p.state = pointer<T>(state);
    p.status = pointer<uint8_t>(status);
    p.points = pointer<T>(points);
    p.alive = pointer<int32_t>(alive);
    p.count = pointer<int32_t>(count);
    p.workspace = pointer<void>(workspace);
    p.workspace_size = workspace_size;
    p.images = images;
    p.size = size;
    p.parent_size = parent_size;
    p.plane_distance = static_cast<T>(plane_distance);
    p.radius = static_cast<T>(radius);
    p.offset = static_cast<T>(offset);
    p.parent_reach = static_cast<T>(parent_reach);
    p.radii = pointer<const T>(radii);
    run(p, where);
}

// ops.FilmSirenNetwork: addresses in its order, and for fp16 of its packed FiLM; images, width;
// layers of each part; Matrices
using NetworkTuple = std::tuple<std::vector<Address>, int64_t, int64_t, std::vector<int>, int>;

template <class T>
FilmSiren<T> network_of(const NetworkTuple& tuple) {
    const auto& [addresses, images, width, layers, matrices] = tuple;
    FilmSiren<T> network;
    network.first = pointer<const T>(addresses.at(0));
    network.hidden = pointer<const void>(addresses.at(1));
    network.transposed = pointer<const void>(addresses.at(2));
    network.sdf_head = pointer<const T>(addresses.at(3));
    network.texture_head = pointer<const T>(addresses.at(4));
    network.constants = pointer<const T>(addresses.at(5));
    network.scale = pointer<const T>(addresses.at(6));
    network.shift = pointer<const T>(addresses.at(7));
    network.film = addresses.size() > 8 ? pointer<const T>(addresses[8]) : nullptr;
    network.images = images;
    network.width = width;
    network.trunk_layers = layers.at(0);
    network.sdf_layers = layers.at(1);
    network.texture_layers = layers.at(2);
    network.matrices = static_cast<Matrices>(matrices);
    return network;
}

template <class T>
void film_siren(WhereTuple where, const NetworkTuple& network, Address points, Address image,
                Address sdf, Address gradient, Address texture, int64_t count) {
    FilmSirenSample<T> p;
    p.network = network_of<T>(network);
    p.points = pointer<const T>(points);
    p.image = pointer<const int64_t>(image);
    p.sdf = pointer<T>(sdf);
    p.gradient = pointer<T>(gradient);
    p.texture = pointer<T>(texture);
    p.count = count;
    run(p, where);
}

template <class T>
void perceptron(WhereTuple where, Address x, Address parameters, Address out, int64_t count,
                const std::vector<int64_t>& sizes, bool sine, double constant) {
    const int layers = static_cast<int>(sizes.size()) - 1;
    const Perceptron<T> p{pointer<const T>(x),
                          pointer<const T>(parameters),
                          pointer<T>(out),
                          count,
                          sizes.data(),
                          layers,
                          sine,
                          static_cast<T>(constant)};
    py::gil_scoped_release release;
    cpu::launch(p, Where{-1, nullptr, std::get<2>(where)});
}

// points, table, direction, count, dims, features, smooth, cells, masks, begins
using HashTuple = std::tuple<Address, Address, Address, int64_t, int, int, bool,
                             std::vector<uint32_t>, std::vector<uint32_t>, std::vector<int64_t>>;

template <class T>
HashGrid<T> hash_grid_of(const HashTuple& tuple) {
    const auto& [points, table, direction, count, dims, features, smooth, cells, masks, begins] =
        tuple;
    HashGrid<T> grid{};
    grid.points = pointer<const T>(points);
    grid.table = pointer<const T>(table);
    grid.direction = pointer<const T>(direction);
    grid.count = count;
    grid.dims = dims;
    grid.features = features;
    grid.levels = static_cast<int>(cells.size());
    grid.smooth = smooth;
    std::copy(cells.begin(), cells.end(), grid.cells);
    std::copy(masks.begin(), masks.end(), grid.mask);
    std::copy(begins.begin(), begins.end(), grid.begin);
    return grid;
}

template <class T>
void hash_encoding(WhereTuple where, const HashTuple& grid, Address out) {
    run(HashEncoding<T>{hash_grid_of<T>(grid), pointer<T>(out)}, where);
}

template <class T>
void hash_points_gradient(WhereTuple where, const HashTuple& grid, Address gradient, Address out) {
    run(HashPointsGradient<T>{hash_grid_of<T>(grid), pointer<const T>(gradient), pointer<T>(out)},
        where);
}

template <class T>
void hash_table_gradient(WhereTuple where, const HashTuple& grid, Address gradient, Address out) {
    run(HashTableGradient<T>{hash_grid_of<T>(grid), pointer<const T>(gradient), pointer<T>(out)},
        where);
}

// ops.TraceLevel, flat
using LevelTuple = std::tuple<int64_t, int64_t, RulesTuple, double, double, double, double>;

template <class T>
std::vector<TraceLevel<T>> levels_of(const std::vector<LevelTuple>& tuples) {
    std::vector<TraceLevel<T>> levels;
    for (const auto& [size, steps, rules, radius, start, reach, patience] : tuples) {
        levels.push_back({size, steps, rules_of<T>(rules), static_cast<T>(radius),
                          static_cast<T>(start), static_cast<T>(reach), static_cast<T>(patience)});
    }
    return levels;
}

template <class T>
void film_siren_trace(WhereTuple where, const NetworkTuple& network, Address cameras,
                      const std::vector<LevelTuple>& level_tuples, Address jitter, Address status,
                      Address distance, Address nearest, Address counts, Address workspace,
                      const LayersTuple& layers, double plane_distance) {
    const std::vector<TraceLevel<T>> levels = levels_of<T>(level_tuples);
    FilmSirenTrace<T> p;
    p.network = network_of<T>(network);
    p.cameras = pointer<const T>(cameras);
    p.levels = levels.data();
    p.jitter = pointer<const T>(jitter);
    p.status = pointer<uint8_t>(status);
    p.distance = pointer<T>(distance);
    p.nearest = pointer<T>(nearest);
    p.counts = pointer<int64_t>(counts);
    p.workspace = pointer<void>(workspace);
    p.layers = layers_of<T>(layers);
    p.level_count = static_cast<int64_t>(levels.size());
    p.plane_distance = static_cast<T>(plane_distance);
    run(p, where);
}

#include "bindings_volume.h"

void mesh_distance(WhereTuple where, const std::vector<Address>& tree, Address points,
                   Address order, Address distance, Address face, Address closest, Address winding,
                   int64_t count) {
    MeshDistance p;
    p.tree.vertices = pointer<const float>(tree.at(0));
    p.tree.faces = pointer<const int32_t>(tree.at(1));
    p.tree.nodes = pointer<const float>(tree.at(2));
    p.tree.children = pointer<const int32_t>(tree.at(3));
    p.tree.leaves = pointer<const float>(tree.at(4));
    p.tree.leaf_faces = pointer<const int32_t>(tree.at(5));
    p.tree.closed = pointer<const bool>(tree.at(6));
    p.points = pointer<const float>(points);
    p.order = pointer<const int32_t>(order);
    p.distance = pointer<float>(distance);
    p.face = pointer<int32_t>(face);
    p.closest = pointer<float>(closest);
    p.winding = pointer<float>(winding);
    p.count = count;
    run(p, where);
}

// A tree that was built, until its arrays have been copied to where Python wants them.
void add_mesh_tree(py::module_ module) {
    using Tree = cpu::MeshTreeArrays;
    py::class_<Tree>(module, "MeshTree", py::module_local())
        .def(py::init([](Address vertices, Address faces, int64_t face_count, int threads) {
                 py::gil_scoped_release release;
                 return cpu::build_mesh_tree(pointer<const float>(vertices),
                                             pointer<const int32_t>(faces), face_count, threads);
             }),
             py::arg("vertices"), py::arg("faces"), py::arg("face_count"), py::arg("threads"))
        .def_property_readonly("nodes", [](const Tree& tree) { return tree.children.size() / 8; })
        .def_property_readonly("leaves",
                               [](const Tree& tree) { return tree.leaf_faces.size() / 8; })
        .def("write", [](const Tree& tree, Address nodes, Address children, Address leaves,
                         Address leaf_faces) {
            std::copy(tree.nodes.begin(), tree.nodes.end(), pointer<float>(nodes));
            std::copy(tree.children.begin(), tree.children.end(), pointer<int32_t>(children));
            std::copy(tree.leaves.begin(), tree.leaves.end(), pointer<float>(leaves));
            std::copy(tree.leaf_faces.begin(), tree.leaf_faces.end(), pointer<int32_t>(leaf_faces));
        });
}

template <class T>
void add_kernels(py::module_ module) {
    module.def("film_siren", film_siren<T>);
    module.def("film_siren_trace", film_siren_trace<T>);
    module.def("hash_encoding", hash_encoding<T>);
    module.def("hash_points_gradient", hash_points_gradient<T>);
    module.def("hash_table_gradient", hash_table_gradient<T>);
    module.def("perceptron", perceptron<T>);
    module.def("positional_encoding", positional_encoding<T>);
    module.def("sample_pdf", sample_pdf<T>);
    module.def("generate_rays", generate_rays<T>);
    module.def("start_level", start_level<T>);
    module.def("trace_step", trace_step<T>);
    add_volume_kernels<T>(module);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    py::module_ single = module.def_submodule("f32");
    add_kernels<float>(single);
    single.def("mesh_distance", mesh_distance);
    add_mesh_tree(module);
    add_kernels<double>(module.def_submodule("f64"));

    module.attr("openmp") = cpu::openmp();
#if defined(SDFGAN_X86_BF16)
    module.attr("simd_levels") = "base,avx2,avx512,avx512bf16";
#elif defined(SDFGAN_X86)
    module.attr("simd_levels") = "base,avx2,avx512";
#else
    module.attr("simd_levels") = "base";
#endif
    module.def("simd", cpu::simd);
    module.def("has_bf16", cpu::has_bf16);
    module.def("multiply_adds", cpu::multiply_adds, py::arg("threads"), py::arg("bf16"));
    module.def("set_simd", cpu::set_simd, py::arg("level"));
    cpu::simd();  // an SDFGAN_SIMD that this machine lacks fails here, at import
#ifdef SDFGAN_CUDA
    module.attr("cuda") = true;
    module.attr("cuda_architectures") = SDFGAN_CUDA_ARCHS;
    module.def("start_level_workspace", cuda::start_level_workspace, py::arg("device"),
               py::arg("rays"));
    module.def("trace_step_workspace", cuda::trace_step_workspace, py::arg("device"),
               py::arg("entries"));
    module.def("film_siren_trace_workspace", cuda::film_siren_trace_workspace, py::arg("images"),
               py::arg("sizes"));
#else
    module.attr("cuda") = false;
    module.attr("cuda_architectures") = "";
#endif
}

}  // namespace sdfgan
