// In place of thrust's.
#pragma once

#include <cstdint>

namespace thrust {

template <class T>
struct counting_iterator {
    explicit counting_iterator(T first) : first(first) {}
    T operator[](int64_t i) const { return static_cast<T>(first + i); }
    T first;
};

}  // namespace thrust
