// The Python module sdfgan._C and the only file that knows Python. Each kernel is a function of
// `where` = (device or -1 for the CPU, CUDA stream, threads) and of its parameters by keyword,
// named as in kernels/. An array is a tensor or None, a struct within a struct a dict. That every
// name is there and none is unknown is checked here; shapes, dtypes and devices are checked in
// sdfgan/ops.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kernels/launch.h"

namespace py = pybind11;

namespace sdfgan {
namespace {

using Address = std::uintptr_t;
using WhereTuple = std::tuple<int, Address, int>;

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

// ---- parameters from keywords

// Python strings of a struct's names, made once: dicts are then looked into without a copy.
template <class Struct>
const std::vector<py::handle>& names_of(const char* list) {
    static const std::vector<py::handle> names = [list] {
        std::vector<py::handle> made;
        std::string name;
        for (const char* c = list;; ++c) {
            if (*c && *c != ',') {
                if (*c != ' ') name += *c;
                continue;
            }
            made.push_back(PyUnicode_InternFromString(name.c_str()));
            name.clear();
            if (!*c) return made;
        }
    }();
    return names;
}

// What the elements of HostArrays are kept in until the launch is over.
using Kept = std::vector<std::shared_ptr<void>>;

template <class Struct>
void read_struct(const py::handle& values, Struct& out, Kept& kept);

void read(const py::handle& value, void const*& out, Kept&) {
    static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
    out = nullptr;
    if (value.is_none()) return;
    const auto address =
        py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(value.ptr(), data_ptr));
    if (!address) throw py::error_already_set();
    out = pointer<void>(address.cast<Address>());
}

template <class T>
void read(const py::handle& value, T*& out, Kept& kept) {
    const void* address;
    read(value, address, kept);
    out = static_cast<T*>(const_cast<void*>(address));
}

template <class T, std::enable_if_t<std::is_arithmetic_v<T>, int> = 0>
void read(const py::handle& value, T& out, Kept&) {
    using Wide = std::conditional_t<std::is_floating_point_v<T>, double, T>;
    out = static_cast<T>(value.cast<Wide>());
}

template <class T, std::enable_if_t<std::is_enum_v<T>, int> = 0>
void read(const py::handle& value, T& out, Kept&) {
    out = static_cast<T>(value.cast<int>());
}

template <class T, std::enable_if_t<std::is_class_v<T>, int> = 0>
void read(const py::handle& value, T& out, Kept& kept) {
    read_struct(value, out, kept);
}

template <class T, size_t kSize>
void read(const py::handle& value, T (&out)[kSize], Kept&) {
    const auto values = value.cast<std::vector<T>>();
    if (values.size() > kSize) throw py::value_error("a list is too long");
    std::fill(std::copy(values.begin(), values.end(), out), out + kSize, T());
}

template <class T>
void read(const py::handle& value, HostArray<T>& out, Kept& kept) {
    const auto values = std::make_shared<std::vector<T>>();
    for (const py::handle item : value) read(item, values->emplace_back(), kept);
    out = {values->data(), static_cast<int64_t>(values->size())};
    kept.push_back(values);
}

template <class Struct>
void read_struct(const py::handle& values, Struct& out, Kept& kept) {
    out.fields([&](const char* list, auto&... members) {
        if (!PyDict_Check(values.ptr())) throw py::type_error("a struct must be a dict");
        const std::vector<py::handle>& names = names_of<Struct>(list);
        size_t i = 0;
        const auto read_member = [&](auto& member) {
            const py::handle name = names[i++];
            const py::handle value = PyDict_GetItemWithError(values.ptr(), name.ptr());
            if (!value) throw py::type_error("missing: " + name.cast<std::string>());
            read(value, member, kept);
        };
        (read_member(members), ...);
        if (static_cast<size_t>(PyDict_Size(values.ptr())) == names.size()) return;
        for (const auto& item : py::reinterpret_borrow<py::dict>(values)) {
            if (std::none_of(names.begin(), names.end(),
                             [&](py::handle name) { return name.equal(item.first); })) {
                throw py::type_error("unknown: " + item.first.cast<std::string>());
            }
        }
    });
}

// ---- signatures, for help() and for the test of _C.pyi

template <class T>
std::string type_name(const T&);
template <class T>
std::string type_name(const HostArray<T>&);

template <class Struct>
std::string signature(const Struct& parameters) {
    std::string text;
    const_cast<Struct&>(parameters).fields([&](const char* list, auto&... members) {
        const std::vector<py::handle>& names = names_of<Struct>(list);
        size_t i = 0;
        ((text += (i ? ", " : "") + names[i].cast<std::string>() + ": " + type_name(members), ++i),
         ...);
    });
    return text;
}

template <class T>
std::string type_name(const T& member) {
    if constexpr (std::is_pointer_v<T>) {
        return "Tensor | None";
    } else if constexpr (std::is_same_v<T, bool>) {
        return "bool";
    } else if constexpr (std::is_floating_point_v<T>) {
        return "float";
    } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
        return "int";
    } else if constexpr (std::is_array_v<T>) {
        return "list[" + type_name(member[0]) + "]";
    } else {
        return "dict";
    }
}

template <class T>
std::string type_name(const HostArray<T>&) {
    return "list[" + type_name(T{}) + "]";
}

// ---- kernels

template <class Parameters>
void run(const Parameters& parameters, const Where& where) {
    if (where.device < 0) {
        cpu::launch(parameters, where);
        return;
    }
#ifdef SDFGAN_CUDA
    cuda::launch(parameters, where);
#else
    throw std::runtime_error("sdfgan was built without CUDA");
#endif
}

#define SDFGAN_RUN_ON_CPU(name, Parameters)                         \
    template <class T>                                              \
    void run(const Parameters<T>& parameters, const Where& where) { \
        cpu::launch(parameters, where);                             \
    }
SDFGAN_CPU_KERNELS(SDFGAN_RUN_ON_CPU)
#undef SDFGAN_RUN_ON_CPU

template <class Parameters>
void add_kernel(py::module_& module, const char* name) {
    const auto kernel = [](const WhereTuple& tuple, const py::kwargs& keywords) {
        Parameters parameters;
        Kept kept;
        read_struct(keywords, parameters, kept);
        const auto [device, stream, threads] = tuple;
        py::gil_scoped_release release;
        run(parameters, Where{device, pointer<void>(stream), threads});
    };
    const std::string text = std::string(name) + "(where, *, " + signature(Parameters{}) + ")";
    module.def(name, kernel, text.c_str());
}

template <class T>
void add_kernels(py::module_ module) {
#define SDFGAN_ADD(name, Parameters) add_kernel<Parameters<T>>(module, #name);
    SDFGAN_KERNELS(SDFGAN_ADD)
    SDFGAN_GRADIENT_KERNELS(SDFGAN_ADD)
    SDFGAN_CPU_KERNELS(SDFGAN_ADD)
#undef SDFGAN_ADD
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
        .def(
            "write",
            [](const Tree& tree, Address nodes, Address children, Address leaves,
               Address leaf_faces) {
                const auto copy = [](const auto& values, auto* target) {
                    std::copy(values.begin(), values.end(), target);
                };
                copy(tree.nodes, pointer<float>(nodes));
                copy(tree.children, pointer<int32_t>(children));
                copy(tree.leaves, pointer<float>(leaves));
                copy(tree.leaf_faces, pointer<int32_t>(leaf_faces));
            },
            py::arg("nodes"), py::arg("children"), py::arg("leaves"), py::arg("leaf_faces"));
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    py::options options;
    options.disable_function_signatures();
    py::module_ single = module.def_submodule("f32");
    add_kernels<float>(single);
    add_kernel<MeshDistance>(single, "mesh_distance");
    add_kernel<MeshRaycast>(single, "mesh_raycast");
    add_mesh_tree(module);
    add_kernels<double>(module.def_submodule("f64"));

    module.attr("openmp") = cpu::openmp();
    module.attr("simd_levels") = SDFGAN_SIMD_LEVELS;
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
    module.def("film_siren_backward_workspace", cuda::film_siren_backward_workspace,
               py::arg("device"), py::arg("count"), py::arg("images"), py::arg("width"),
               py::arg("layers"), py::arg("half"));
    module.def("film_siren_trace_workspace", cuda::film_siren_trace_workspace, py::arg("device"),
               py::arg("images"), py::arg("sizes"));
#else
    module.attr("cuda") = false;
    module.attr("cuda_architectures") = "";
#endif
}

}  // namespace sdfgan
