// Builds the tree of core/mesh.h, level by level: binned surface-area splits (Wald, "On fast
// Construction of SAH-based Bounding Volume Hierarchies", 2007), of which seven make a node of
// eight children. A node's range of triangles is its own, so that levels go over threads, and
// numbers are given in the order of the level: the tree does not depend on the number of threads.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "core/mesh.h"
#include "cpu/parallel.h"

namespace sdfgan::cpu {
namespace {

constexpr int kBins = 16;
constexpr int kDeepest = 20;  // levels with chosen splits; halves after them
// A level leaves at most 7 entries below the one in use, and 2^31 triangles take 10 levels of
// halves.
static_assert(7 * (kDeepest + 10) + kLanes <= kMostStack);

using Point = std::array<double, 3>;

struct Box {
    Point low{INFINITY, INFINITY, INFINITY}, high{-INFINITY, -INFINITY, -INFINITY};

    void add(const Point& from, const Point& to) {
        for (int k = 0; k < 3; ++k) {
            low[k] = std::min(low[k], from[k]);
            high[k] = std::max(high[k], to[k]);
        }
    }
    double half_area() const {
        const double x = high[0] - low[0], y = high[1] - low[1], z = high[2] - low[2];
        return x * y + y * z + z * x;
    }
};

struct Face {
    Point corner[3];
    Box box;
    Point middle;  // of the box
    Point centre;
    Point normal;  // as long as the face is large
    double area;
};

struct Range {
    int64_t begin, end;
};

struct Node {
    Range range;
    int children = 0;
    Range child[kLanes];
};

class Builder {
  public:
    Builder(const float* vertices, const int32_t* faces, int64_t count, int threads)
        : faces_(count), order_(count), threads_(threads) {
        parallel_for(count, 4096, threads, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                make_face(vertices, faces + 3 * i, faces_[i]);
                order_[i] = static_cast<int32_t>(i);
            }
        });
    }

    MeshTreeArrays build() {
        MeshTreeArrays tree;
        std::vector<Range> leaves;
        std::vector<Node> level(1);
        level[0].range = {0, static_cast<int64_t>(order_.size())};
        int64_t first = 0;  // number of the level's first node
        for (int depth = 0; !level.empty(); ++depth) {
            const int64_t count = static_cast<int64_t>(level.size());
            tree.nodes.resize((first + count) * kNodeValues);
            parallel_for(count, 1, threads_, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    split_node(level[i], depth);
                    write_node(level[i], tree.nodes.data() + (first + i) * kNodeValues);
                }
            });
            std::vector<Node> next;
            for (const Node& node : level) {
                for (int i = 0; i < kLanes; ++i) {
                    int32_t child = kNone;
                    if (i < node.children && size(node.child[i]) <= kLanes) {
                        child = ~static_cast<int32_t>(leaves.size());
                        leaves.push_back(node.child[i]);
                    } else if (i < node.children) {
                        child = static_cast<int32_t>(first + count + next.size());
                        next.emplace_back().range = node.child[i];
                    }
                    tree.children.push_back(child);
                }
            }
            first += count;
            level.swap(next);
        }
        tree.leaves.resize(leaves.size() * kLeafValues);
        tree.leaf_faces.resize(leaves.size() * kLanes);
        parallel_for(leaves.size(), 512, threads_, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                write_leaf(leaves[i], tree.leaves.data() + i * kLeafValues,
                           tree.leaf_faces.data() + i * kLanes);
            }
        });
        return tree;
    }

  private:
    std::vector<Face> faces_;
    std::vector<int32_t> order_;
    int threads_;

    static int64_t size(const Range& range) { return range.end - range.begin; }

    static void make_face(const float* vertices, const int32_t* corners, Face& face) {
        for (int i = 0; i < 3; ++i) {
            for (int k = 0; k < 3; ++k) face.corner[i][k] = vertices[3 * int64_t{corners[i]} + k];
            face.box.add(face.corner[i], face.corner[i]);
        }
        const auto& [a, b, c] = face.corner;
        for (int k = 0; k < 3; ++k) {
            const int l = (k + 1) % 3, m = (k + 2) % 3;
            face.normal[k] = ((b[l] - a[l]) * (c[m] - a[m]) - (b[m] - a[m]) * (c[l] - a[l])) / 2;
            face.centre[k] = (a[k] + b[k] + c[k]) / 3;
            face.middle[k] = (face.box.low[k] + face.box.high[k]) / 2;
        }
        face.area = std::sqrt(dot3(face.normal.data(), face.normal.data()));
    }

    // Halves the largest child until there are eight, or all are leaves.
    void split_node(Node& node, int depth) {
        node.child[0] = node.range;
        node.children = 1;
        while (node.children < kLanes) {
            Range* largest =
                std::max_element(node.child, node.child + node.children,
                                 [](const Range& a, const Range& b) { return size(a) < size(b); });
            if (size(*largest) <= kLanes) return;
            const int64_t middle = split(*largest, depth);
            node.child[node.children++] = {middle, largest->end};
            largest->end = middle;
        }
    }

    // Reorders the range; where its second part begins.
    int64_t split(const Range& range, int depth) {
        const int64_t half = range.begin + size(range) / 2;
        Box middles;
        for (int64_t i = range.begin; i < range.end; ++i) {
            const Point& middle = faces_[order_[i]].middle;
            middles.add(middle, middle);
        }
        int axis = -1, bin = 0;
        if (depth < kDeepest) choose(range, middles, axis, bin);
        if (axis < 0) {
            int longest = 0;
            for (int k = 1; k < 3; ++k) {
                if (middles.high[k] - middles.low[k] >
                    middles.high[longest] - middles.low[longest]) {
                    longest = k;
                }
            }
            std::nth_element(order_.begin() + range.begin, order_.begin() + half,
                             order_.begin() + range.end, [&](int32_t a, int32_t b) {
                                 return faces_[a].middle[longest] < faces_[b].middle[longest];
                             });
            return half;
        }
        const auto middle = std::partition(
            order_.begin() + range.begin, order_.begin() + range.end,
            [&](int32_t face) { return bin_of(faces_[face].middle[axis], middles, axis) < bin; });
        return middle - order_.begin();
    }

    static int bin_of(double middle, const Box& middles, int axis) {
        const double extent = middles.high[axis] - middles.low[axis];
        return std::min(kBins - 1, static_cast<int>((middle - middles.low[axis]) / extent * kBins));
    }

    // The axis and bin with the least expected work; no axis where all middles are one point.
    void choose(const Range& range, const Box& middles, int& axis, int& bin) const {
        const auto cost = [](const Box& box, int64_t count) {
            return count > 0 ? box.half_area() * ((count + kLanes - 1) / kLanes) : INFINITY;
        };
        double least = INFINITY;
        for (int k = 0; k < 3; ++k) {
            if (!(middles.high[k] > middles.low[k])) continue;
            Box boxes[kBins];
            int64_t counts[kBins] = {};
            for (int64_t i = range.begin; i < range.end; ++i) {
                const Face& face = faces_[order_[i]];
                const int b = bin_of(face.middle[k], middles, k);
                boxes[b].add(face.box.low, face.box.high);
                ++counts[b];
            }
            double above[kBins];
            Box box;
            int64_t count = 0;
            for (int b = kBins - 1; b > 0; --b) {
                box.add(boxes[b].low, boxes[b].high);
                above[b] = cost(box, count += counts[b]);
            }
            box = Box{};
            count = 0;
            for (int b = 1; b < kBins; ++b) {
                box.add(boxes[b - 1].low, boxes[b - 1].high);
                const double total = cost(box, count += counts[b - 1]) + above[b];
                if (total < least) {
                    least = total;
                    axis = k;
                    bin = b;
                }
            }
        }
    }

    void write_node(const Node& node, float* values) const {
        for (int lane = 0; lane < kLanes; ++lane) {
            const auto set = [&](int row, double value) {
                values[row * kLanes + lane] = static_cast<float>(value);
            };
            if (lane < node.children) {
                write_child(node.child[lane], set);
                continue;
            }
            for (int row = 0; row < kNodeRows; ++row) set(row, 0);
            for (int k = 0; k < 3; ++k) {
                set(kLow + k, INFINITY);
                set(kHigh + k, INFINITY);
                set(kCentre + k, 1e15);
            }
        }
    }

    template <class Set>
    void write_child(const Range& range, const Set& set) const {
        Box box;
        double area = 0, moment[3][3] = {}, reach = 0;
        Point weighted{}, normal{}, centre;
        for (int64_t i = range.begin; i < range.end; ++i) {
            const Face& face = faces_[order_[i]];
            box.add(face.box.low, face.box.high);
            area += face.area;
            for (int k = 0; k < 3; ++k) {
                weighted[k] += face.area * face.centre[k];
                normal[k] += face.normal[k];
            }
        }
        for (int k = 0; k < 3; ++k) {
            centre[k] = area > 0 ? weighted[k] / area : (box.low[k] + box.high[k]) / 2;
            centre[k] = static_cast<float>(centre[k]);  // what the moment refers to
            set(kLow + k, box.low[k]);
            set(kHigh + k, box.high[k]);
            set(kCentre + k, centre[k]);
            set(kNormal + k, normal[k]);
        }
        for (int64_t i = range.begin; i < range.end; ++i) {
            const Face& face = faces_[order_[i]];
            for (int k = 0; k < 3; ++k) {
                for (int l = 0; l < 3; ++l) {
                    moment[k][l] += (face.centre[k] - centre[k]) * face.normal[l];
                }
            }
            for (const Point& corner : face.corner) {
                double square = 0;
                for (int k = 0; k < 3; ++k) {
                    square += (corner[k] - centre[k]) * (corner[k] - centre[k]);
                }
                reach = std::max(reach, square);
            }
        }
        const double third = (moment[0][0] + moment[1][1] + moment[2][2]) / 3;
        int row = kMoment;
        for (int k = 0; k < 3; ++k) {
            for (int l = k; l < 3; ++l) {
                set(row++, (moment[k][l] + moment[l][k]) / 2 - (k == l ? third : 0));
            }
        }
        set(kReach, reach * (1 + 1e-6));
    }

    // Lanes past the last triangle repeat a corner of the first one: never nearer, without an
    // angle.
    void write_leaf(const Range& range, float* values, int32_t* leaf_faces) const {
        for (int lane = 0; lane < kLanes; ++lane) {
            const bool used = lane < size(range);
            const int32_t face = order_[range.begin + (used ? lane : 0)];
            const Point* corner = faces_[face].corner;
            const Triangle<double> triangle = make_triangle(
                corner[0].data(), corner[used ? 1 : 0].data(), corner[used ? 2 : 0].data());
            for (int row = 0; row < kTriangleRows; ++row) {
                values[row * kLanes + lane] = static_cast<float>(triangle(row));
            }
            leaf_faces[lane] = face;
        }
    }
};

}  // namespace

MeshTreeArrays build_mesh_tree(const float* vertices, const int32_t* faces, int64_t face_count,
                               int threads) {
    return Builder(vertices, faces, face_count, threads).build();
}

}  // namespace sdfgan::cpu
