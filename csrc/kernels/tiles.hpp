// Intel AMX: eight tiles of 16 rows of 64 bytes, and products of them. Where FIRTH_SOFTWARE_TILES is defined, a model
// of it in plain C++, so that kernels written for tiles can be tested on any processor.
//
//   load<T>(p, stride)    loads rows of 64 bytes, `stride` bytes apart, into tile T
//   store<T>(p, stride)   stores them
//   zero<T>()             sets tile T to zeros
//   multiply<C, A, B>()   C += A B. C is 16 x 16 floats, A is 16 x 32 numbers in bf16, and B is 32 x 16 in bf16: each
//                         lane of 32 bits in row p of tile B holds a number of row 2p and one of row 2p + 1
//
// A thread may use tiles while it has an object of this type.
#pragma once

#include "kernels/simd.hpp"

#if defined(FIRTH_AMX) || defined(FIRTH_SOFTWARE_TILES)  // from CMake: compilers name their macro differently
#define FIRTH_TILES

namespace firth::FIRTH_ISA {

#if defined(FIRTH_SOFTWARE_TILES)

class Tiles {
  public:
    template <int T>
    FIRTH_INLINE_MEMBER void load(const void* p, std::int64_t stride) {
        for (int i = 0; i < 16; ++i) __builtin_memcpy(tiles_[T][i], static_cast<const char*>(p) + i * stride, 64);
    }
    template <int T>
    FIRTH_INLINE_MEMBER void store(void* p, std::int64_t stride) const {
        for (int i = 0; i < 16; ++i) __builtin_memcpy(static_cast<char*>(p) + i * stride, tiles_[T][i], 64);
    }
    template <int T>
    FIRTH_INLINE_MEMBER void zero() {
        __builtin_memset(tiles_[T], 0, sizeof tiles_[T]);
    }
    // As the processor does it: products are exact, those of even and of odd columns are summed separately, and
    // denormal numbers count as zeros, as inputs and as results.
    template <int C, int A, int B>
    FIRTH_INLINE_MEMBER void multiply() {
        for (int i = 0; i < 16; ++i) {
            float even[16] = {}, odd[16] = {};
            for (int p = 0; p < 16; ++p) {
                const float a = number(tiles_[A][i][p] << 16), b = number(tiles_[A][i][p] & 0xFFFF0000u);
                for (int j = 0; j < 16; ++j) {
                    even[j] = normal(even[j] + a * number(tiles_[B][p][j] << 16));
                    odd[j] = normal(odd[j] + b * number(tiles_[B][p][j] & 0xFFFF0000u));
                }
            }
            for (int j = 0; j < 16; ++j) {
                const float sum = normal(number(tiles_[C][i][j]) + normal(even[j] + odd[j]));
                tiles_[C][i][j] = __builtin_bit_cast(std::uint32_t, sum);
            }
        }
    }

  private:
    FIRTH_INLINE float normal(float x) {
        const auto bits = __builtin_bit_cast(std::uint32_t, x);
        return __builtin_bit_cast(float, bits & 0x7F800000u ? bits : bits & 0x80000000u);
    }
    FIRTH_INLINE float number(std::uint32_t bits) { return normal(__builtin_bit_cast(float, bits)); }

    std::uint32_t tiles_[8][16][16];
};

#else

// Assembly, not the compilers' intrinsics: those do not declare that they read and write memory.
class Tiles {
  public:
    FIRTH_INLINE_MEMBER Tiles() {
        alignas(64) unsigned char shape[64] = {1};  // palette 1; from byte 16 on bytes per row, from byte 48 on rows
        for (int t = 0; t < 8; ++t) {
            shape[16 + 2 * t] = 64;
            shape[48 + t] = 16;
        }
        asm volatile("ldtilecfg %0" : : "m"(shape));
    }
    FIRTH_INLINE_MEMBER ~Tiles() { asm volatile("tilerelease"); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

    template <int T>
    FIRTH_INLINE_MEMBER void load(const void* p, std::int64_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(T) : "memory");
    }
    template <int T>
    FIRTH_INLINE_MEMBER void store(void* p, std::int64_t stride) const {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(T) : "memory");
    }
    template <int T>
    FIRTH_INLINE_MEMBER void zero() {
        asm volatile("tilezero %%tmm%c0" : : "i"(T));
    }
    template <int C, int A, int B>
    FIRTH_INLINE_MEMBER void multiply() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
    }
};

#endif

}  // namespace firth::FIRTH_ISA

#endif
