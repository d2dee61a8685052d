// Counts that are known when a kernel is compiled, so that its loops unroll.
#pragma once

#include "kernels/simd.hpp"

#define FIRTH_INLINE_LAMBDA __attribute__((always_inline))

namespace firth::FIRTH_ISA {

template <int N>
struct Count {
    static constexpr int n = N;
};

// Calls use(Count<n>) for n in 1 .. Most; a larger n counts as Most.
template <int Most, class Use>
FIRTH_INLINE decltype(auto) with_count(std::int64_t n, Use&& use) {
    if constexpr (Most > 1) {
        if (n < Most) return with_count<Most - 1>(n, use);
    }
    return use(Count<Most>{});
}

}  // namespace firth::FIRTH_ISA
