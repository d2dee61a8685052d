// Random numbers as a pure function of their purpose. There is no generator with a state to carry along: a
// chunk's numbers do not depend on how the work was cut, nor on which thread does it.
//
// Everything is `static`: kernels compile this header once per instruction set, and a shared inline function could
// leave its AVX-512 copy to everyone.
#pragma once

#include <cstdint>

namespace firth {

// The finalizer of SplitMix64 (Steele, Lea & Flood 2014): a bijection of 64 bits in which every bit of the result
// depends on every bit of x.
static inline std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

// Element `index` of the random sequence `key`.
static inline std::uint64_t random_at(std::uint64_t key, std::uint64_t index) {
    return mix(key + (index + 1) * 0x9E3779B97F4A7C15u);
}

// A sequence of its own for every (seed, stream): seeds that differ by one have nothing in common.
static inline std::uint64_t random_key(std::uint64_t seed, std::uint64_t stream) {
    return random_at(mix(seed ^ 0xD1B54A32D192ED03u), stream);
}

// The high 32 bits of `bits` as an integer in [0, n). The bias, below n / 2^32, is far too small to affect training.
static inline std::uint32_t random_below(std::uint64_t bits, std::uint32_t n) {
    return static_cast<std::uint32_t>(((bits >> 32) * n) >> 32);
}

// Element `index` of a random permutation of [0, n), 1 <= n <= 2^62, with no table: a Feistel network of four rounds
// over an even number of bits; a number beyond n goes through it again (cycle walking: Black & Rogaway 2002).
static inline std::uint64_t permuted_at(std::uint64_t key, std::uint64_t index, std::uint64_t n) {
    const int half = n <= 4 ? 1 : (65 - __builtin_clzll(n - 1)) / 2;
    const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
    do {
        for (std::uint64_t round = 0; round < 4; ++round) {
            const std::uint64_t right = index & mask;
            index = right << half | ((index >> half) ^ (random_at(key, 4 * right + round) & mask));
        }
    } while (index >= n);
    return index;
}

}  // namespace firth
