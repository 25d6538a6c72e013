// The kernels for volumes; part of bindings.cpp.
#pragma once

using SamplesTuple = std::tuple<Address, int64_t, int64_t>;  // members of RaySamples

inline RaySamples ray_samples(const SamplesTuple& tuple) {
    const auto [offsets, rays, samples] = tuple;
    return {pointer<const int64_t>(offsets), rays, samples};
}

template <class T>
void composite(WhereTuple where, const SamplesTuple& at, Address densities, Address deltas,
               Address colors, Address distances, Address weights, Address opacity, Address out,
               Address depth, int64_t channels) {
    Composite<T> p;
    p.at = ray_samples(at);
    p.densities = pointer<const T>(densities);
    p.deltas = pointer<const T>(deltas);
    p.colors = pointer<const T>(colors);
    p.distances = pointer<const T>(distances);
    p.weights = pointer<T>(weights);
    p.opacity = pointer<T>(opacity);
    p.out = pointer<T>(out);
    p.depth = pointer<T>(depth);
    p.channels = channels;
    run(p, where);
}

template <class T>
void composite_backward(WhereTuple where, const SamplesTuple& at, Address densities, Address deltas,
                        Address colors, Address distances, Address weights, Address grad_weights,
                        Address grad_opacity, Address grad_out, Address grad_depth,
                        Address grad_densities, Address grad_deltas, Address grad_colors,
                        Address grad_distances, int64_t channels) {
    CompositeBackward<T> p;
    p.at = ray_samples(at);
    p.densities = pointer<const T>(densities);
    p.deltas = pointer<const T>(deltas);
    p.colors = pointer<const T>(colors);
    p.distances = pointer<const T>(distances);
    p.weights = pointer<const T>(weights);
    p.grad_weights = pointer<const T>(grad_weights);
    p.grad_opacity = pointer<const T>(grad_opacity);
    p.grad_out = pointer<const T>(grad_out);
    p.grad_depth = pointer<const T>(grad_depth);
    p.grad_densities = pointer<T>(grad_densities);
    p.grad_deltas = pointer<T>(grad_deltas);
    p.grad_colors = pointer<T>(grad_colors);
    p.grad_distances = pointer<T>(grad_distances);
    p.channels = channels;
    run(p, where);
}

template <class T>
void overlap_sums(WhereTuple where, Address edges, Address others, Address weights, Address out,
                  int64_t rays, int64_t bins, int64_t other_bins) {
    OverlapSums<T> p;
    p.edges = pointer<const T>(edges);
    p.others = pointer<const T>(others);
    p.weights = pointer<const T>(weights);
    p.out = pointer<T>(out);
    p.rays = rays;
    p.bins = bins;
    p.other_bins = other_bins;
    run(p, where);
}

template <class T>
void distortion(WhereTuple where, Address edges, Address weights, Address out, int64_t rays,
                int64_t bins) {
    Distortion<T> p;
    p.edges = pointer<const T>(edges);
    p.weights = pointer<const T>(weights);
    p.out = pointer<T>(out);
    p.rays = rays;
    p.bins = bins;
    run(p, where);
}

template <class T>
void sample_pixels(WhereTuple where, Address cameras, Address intrinsics, Address distortion,
                   Address fisheye, Address widths, Address starts, Address pixels, Address images,
                   Address mask, Address origins, Address directions, Address radii, Address colors,
                   int64_t count, int64_t views, int64_t channels, int64_t stored, int64_t terms,
                   int64_t masked, bool bytes) {
    SamplePixels<T> p;
    p.cameras = pointer<const T>(cameras);
    p.intrinsics = pointer<const T>(intrinsics);
    p.distortion = pointer<const T>(distortion);
    p.fisheye = pointer<const bool>(fisheye);
    p.widths = pointer<const int64_t>(widths);
    p.starts = pointer<const int64_t>(starts);
    p.pixels = pointer<const int64_t>(pixels);
    p.images = pointer<const void>(images);
    p.mask = pointer<const bool>(mask);
    p.origins = pointer<T>(origins);
    p.directions = pointer<T>(directions);
    p.radii = pointer<T>(radii);
    p.colors = pointer<T>(colors);
    p.count = count;
    p.views = views;
    p.channels = channels;
    p.stored = stored;
    p.terms = terms;
    p.masked = masked;
    p.bytes = bytes;
    run(p, where);
}

using MarchTuple = std::tuple<Address, Address, Address, Address, Address, Address, Address,
                              int64_t, int64_t, double, double>;  // members of GridMarch

template <class T>
GridMarch<T> grid_march(const MarchTuple& tuple) {
    const auto [origins, directions, near, far, jitter, occupied, first, rays, resolution, step,
                even] = tuple;
    return {pointer<const T>(origins),
            pointer<const T>(directions),
            pointer<const T>(near),
            pointer<const T>(far),
            pointer<const T>(jitter),
            pointer<const bool>(occupied),
            pointer<const int32_t>(first),
            rays,
            resolution,
            static_cast<T>(step),
            static_cast<T>(even)};
}

template <class T>
void march_count(WhereTuple where, const MarchTuple& march, Address counts, Address next,
                 int64_t most) {
    MarchCount<T> p;
    p.march = grid_march<T>(march);
    p.counts = pointer<int64_t>(counts);
    p.next = pointer<int32_t>(next);
    p.most = most;
    run(p, where);
}

template <class T>
void march_samples(WhereTuple where, const MarchTuple& march, const SamplesTuple& at,
                   Address points, Address directions, Address distances, Address deltas) {
    MarchSamples<T> p;
    p.march = grid_march<T>(march);
    p.at = ray_samples(at);
    p.points = pointer<T>(points);
    p.directions = pointer<T>(directions);
    p.distances = pointer<T>(distances);
    p.deltas = pointer<T>(deltas);
    run(p, where);
}

template <class T>
void march_reached(WhereTuple where, const SamplesTuple& at, Address densities, Address deltas,
                   Address depth, Address reached, Address next, double limit) {
    MarchReached<T> p;
    p.at = ray_samples(at);
    p.densities = pointer<const T>(densities);
    p.deltas = pointer<const T>(deltas);
    p.depth = pointer<T>(depth);
    p.reached = pointer<int64_t>(reached);
    p.next = pointer<int32_t>(next);
    p.limit = static_cast<T>(limit);
    run(p, where);
}

template <class T>
void frustum_gaussians(WhereTuple where, Address origins, Address directions, Address edges,
                       Address radii, Address means, Address covariances, int64_t rays,
                       int64_t samples, bool cylinder, bool full) {
    FrustumGaussians<T> p;
    p.origins = pointer<const T>(origins);
    p.directions = pointer<const T>(directions);
    p.edges = pointer<const T>(edges);
    p.radii = pointer<const T>(radii);
    p.means = pointer<T>(means);
    p.covariances = pointer<T>(covariances);
    p.rays = rays;
    p.samples = samples;
    p.cylinder = cylinder;
    p.full = full;
    run(p, where);
}

template <class T>
void integrated_positional_encoding(WhereTuple where, Address means, Address variances, Address out,
                                    int64_t points, int64_t dims, int octaves) {
    IntegratedPositionalEncoding<T> p;
    p.means = pointer<const T>(means);
    p.variances = pointer<const T>(variances);
    p.out = pointer<T>(out);
    p.points = points;
    p.dims = dims;
    p.octaves = octaves;
    run(p, where);
}

template <class T>
void integrated_directional_encoding(WhereTuple where, Address directions, Address roughness,
                                     Address table, Address out, Address grad_out,
                                     Address grad_directions, Address grad_roughness, int64_t count,
                                     int64_t width, int levels) {
    IntegratedDirectionalEncoding<T> p;
    p.directions = pointer<const T>(directions);
    p.roughness = pointer<const T>(roughness);
    p.table = pointer<const T>(table);
    p.out = pointer<T>(out);
    p.grad_out = pointer<const T>(grad_out);
    p.grad_directions = pointer<T>(grad_directions);
    p.grad_roughness = pointer<T>(grad_roughness);
    p.count = count;
    p.width = width;
    p.levels = levels;
    run(p, where);
}

template <class T>
void add_volume_kernels(py::module_ module) {
    module.def("composite", composite<T>);
    module.def("composite_backward", composite_backward<T>);
    module.def("overlap_sums", overlap_sums<T>);
    module.def("distortion", distortion<T>);
    module.def("sample_pixels", sample_pixels<T>);
    module.def("march_count", march_count<T>);
    module.def("march_samples", march_samples<T>);
    module.def("march_reached", march_reached<T>);
    module.def("frustum_gaussians", frustum_gaussians<T>);
    module.def("integrated_positional_encoding", integrated_positional_encoding<T>);
    module.def("integrated_directional_encoding", integrated_directional_encoding<T>);
}
