// Pieces of a thread's scratch.
#pragma once

#include <cstdint>

namespace firth::FIRTH_ISA {

// Hands out pieces of the scratch, or, without scratch, only adds them up.
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

}  // namespace firth::FIRTH_ISA
