// Memory that the caller supplies, cut into arrays.
#pragma once

#include <cstdint>

namespace firth {
namespace {  // internal to each file: kernels are compiled for several instruction sets

// Hands out arrays on cache lines of their own. Without memory it only adds up their bytes.
struct Arena {
    char* base;
    std::int64_t used = 0;
    template <class T>
    T* take(std::int64_t n) {
        T* piece = base ? reinterpret_cast<T*>(base + used) : nullptr;
        used += (n * static_cast<std::int64_t>(sizeof(T)) + 63) / 64 * 64;
        return piece;
    }
};

}  // namespace
}  // namespace firth
