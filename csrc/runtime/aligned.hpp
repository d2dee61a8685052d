// Memory on whole cache lines, for a thread's scratch.
#pragma once

#include <cstdint>
#include <new>

namespace firth {

struct AlignedBytes {
    explicit AlignedBytes(std::int64_t n) : data(::operator new(static_cast<std::size_t>(n), std::align_val_t{64})) {}
    ~AlignedBytes() { ::operator delete(data, std::align_val_t{64}); }
    AlignedBytes(const AlignedBytes&) = delete;
    AlignedBytes& operator=(const AlignedBytes&) = delete;
    void* data;
};

}  // namespace firth
