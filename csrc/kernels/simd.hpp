// A vector of floats as wide as those of the current instruction set, over the vector extensions of GCC and Clang.
//
// Kernels include this once per instruction set, inside the namespace FIRTH_ISA. All of it is always inlined, so that
// no function compiled for one instruction set can be linked into code for another.
#pragma once

#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FIRTH_INLINE static FIRTH_INLINE_MEMBER
#define FIRTH_INLINE_MEMBER inline __attribute__((always_inline))

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define FIRTH_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef FIRTH_SHUFFLE  // GCC 11
#define FIRTH_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype((a) == (a)){__VA_ARGS__})
#endif

namespace firth::FIRTH_ISA {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

// The number of vector registers, which limits register blocks.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(4 * kWidth)));
typedef std::int32_t VecInt __attribute__((vector_size(4 * kWidth)));
typedef float Vec4 __attribute__((vector_size(16)));

// Memory as the kernels may touch it: at any float's address, and as another type than it was written.
typedef float VecMemory __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));
typedef float Vec4Memory __attribute__((vector_size(16), aligned(4), may_alias));

FIRTH_INLINE Vec load(const float* p) { return *reinterpret_cast<const VecMemory*>(p); }
FIRTH_INLINE void store(float* p, Vec v) { *reinterpret_cast<VecMemory*>(p) = v; }
FIRTH_INLINE void store4(float* p, Vec4 v) { *reinterpret_cast<Vec4Memory*>(p) = v; }
// Less zero, not plus zero: only that is x for every x, -0 included, so that the compiler removes it.
FIRTH_INLINE Vec splat(float x) { return x - Vec{}; }
FIRTH_INLINE VecInt splat_int(std::int32_t x) { return x - VecInt{}; }
// The 32 bits at p in every lane, whatever they encode: float arithmetic could change those of a NaN.
FIRTH_INLINE Vec splat_bits(const void* p) {
    typedef std::int32_t Bits __attribute__((aligned(4), may_alias));
    return reinterpret_cast<Vec>(splat_int(*static_cast<const Bits*>(p)));
}

// Chooses lane by lane; a mask lane is all ones or all zeros, as comparisons give it.
FIRTH_INLINE Vec select(VecInt mask, Vec yes, Vec no) {
    return reinterpret_cast<Vec>((mask & reinterpret_cast<VecInt>(yes)) | (~mask & reinterpret_cast<VecInt>(no)));
}
FIRTH_INLINE Vec clamp(Vec x, float low, float high) {
    x = select(x < low, splat(low), x);
    return select(x > high, splat(high), x);
}

// The smaller and the larger, lane by lane; b where a is NaN.
FIRTH_INLINE Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_min_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#elif defined(__x86_64__)
    return reinterpret_cast<Vec>(_mm_min_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b)));
#else
    return select(a < b, a, b);
#endif
}
FIRTH_INLINE Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#elif defined(__x86_64__)
    return reinterpret_cast<Vec>(_mm_max_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b)));
#else
    return select(a > b, a, b);
#endif
}

FIRTH_INLINE bool any_nan(Vec x) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(x), _CMP_UNORD_Q) != 0;
#elif defined(__AVX2__)
    const auto v = reinterpret_cast<__m256>(x);
    return _mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)) != 0;
#elif defined(__x86_64__)
    const auto v = reinterpret_cast<__m128>(x);
    return _mm_movemask_ps(_mm_cmpunord_ps(v, v)) != 0;
#elif defined(__aarch64__)
    return vminvq_u32(reinterpret_cast<uint32x4_t>(x == x)) == 0;
#else
    const VecInt nan = x != x;
    std::int32_t any = 0;
    for (int lane = 0; lane < kWidth; ++lane) any |= nan[lane];
    return any != 0;
#endif
}

// e^x for x in [-87, 87], within 2 units in the last place, and exactly 1 at 0: 2^n times a polynomial on
// [-ln2/2, ln2/2] whose coefficients are those of the Cephes library (Moshier).
FIRTH_INLINE Vec exp_bounded(Vec x) {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits.
    const Vec shifted = x * 1.44269504088896341f + 12582912.0f;
    const Vec n = shifted - 12582912.0f;
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first exact times n
    Vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * r) * r + r + 1.0f;
    const VecInt exponent = reinterpret_cast<VecInt>(shifted) << 23;  // n, and bits that the shift drops
    return reinterpret_cast<Vec>(reinterpret_cast<VecInt>(p) + exponent);
}

// The natural logarithm of normal positive numbers, within 2 units in the last place: the exponent's part, and a
// polynomial on [sqrt(1/2), sqrt(2)] whose coefficients are those of the Cephes library (Moshier).
FIRTH_INLINE Vec log_positive(Vec x) {
    const VecInt bits = reinterpret_cast<VecInt>(x);
    VecInt exponent = (bits >> 23) - 126;
    Vec m = reinterpret_cast<Vec>((bits & 0x007FFFFF) | 0x3F000000);  // in [1/2, 1)
    const VecInt low = m < 0.707106781186547524f;
    exponent += low;  // -1 where m is doubled
    m = select(low, m + m, m) - 1.0f;
    Vec p = splat(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const Vec e = __builtin_convertvector(exponent, Vec);
    const Vec square = m * m;
    return ((p * m) * square - e * 2.12194440e-4f - 0.5f * square + m) + e * 0.693359375f;
}

// 1 / sqrt(x) for normal positive x: the processor's estimate and one step of Newton's, within a few units in the
// last place; ARM's estimate has 8 bits and takes one step more. A division and a square root would take several times
// as long.
FIRTH_INLINE Vec inverse_sqrt(Vec x) {
#if defined(__AVX512F__)
    const Vec y = reinterpret_cast<Vec>(_mm512_rsqrt14_ps(reinterpret_cast<__m512>(x)));
#elif defined(__AVX2__)
    const Vec y = reinterpret_cast<Vec>(_mm256_rsqrt_ps(reinterpret_cast<__m256>(x)));
#elif defined(__x86_64__)
    const Vec y = reinterpret_cast<Vec>(_mm_rsqrt_ps(reinterpret_cast<__m128>(x)));
#elif defined(__aarch64__)
    const Vec estimate = vrsqrteq_f32(x);
    const Vec y = estimate * vrsqrtsq_f32(x * estimate, estimate);
#else
    Vec y;
    for (int lane = 0; lane < kWidth; ++lane) y[lane] = 1.0f / __builtin_sqrtf(x[lane]);
#endif
    return y * (1.5f - 0.5f * x * y * y);
}

// The sums over the lanes of four vectors, as one vector of four.
FIRTH_INLINE Vec4 sum4(Vec a, Vec b, Vec c, Vec d) {
#if defined(__AVX512F__)
    // Within each 128-bit lane: (a0+a2, b0+b2, a1+a3, b1+b3), then a, b, c, d.
    const Vec ab = FIRTH_SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
                   FIRTH_SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    const Vec cd = FIRTH_SHUFFLE(c, d, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
                   FIRTH_SHUFFLE(c, d, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    const Vec s = FIRTH_SHUFFLE(ab, cd, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                  FIRTH_SHUFFLE(ab, cd, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    const auto v = reinterpret_cast<__m512>(s);
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return reinterpret_cast<Vec4>(_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#elif defined(__AVX2__)
    const Vec ab = FIRTH_SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + FIRTH_SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    const Vec cd = FIRTH_SHUFFLE(c, d, 0, 8, 1, 9, 4, 12, 5, 13) + FIRTH_SHUFFLE(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
    const Vec s = FIRTH_SHUFFLE(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) + FIRTH_SHUFFLE(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    const auto v = reinterpret_cast<__m256>(s);
    return reinterpret_cast<Vec4>(_mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
#elif defined(__aarch64__)
    return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
#else
    const Vec ab = FIRTH_SHUFFLE(a, b, 0, 4, 1, 5) + FIRTH_SHUFFLE(a, b, 2, 6, 3, 7);
    const Vec cd = FIRTH_SHUFFLE(c, d, 0, 4, 1, 5) + FIRTH_SHUFFLE(c, d, 2, 6, 3, 7);
    return FIRTH_SHUFFLE(ab, cd, 0, 1, 4, 5) + FIRTH_SHUFFLE(ab, cd, 2, 3, 6, 7);
#endif
}

// Turns kWidth rows of kWidth numbers into columns: in step s = 1, 2, 4, ... rows whose numbers differ in bit s
// exchange the lanes whose numbers differ in it.
template <int... Lane>
struct Lanes {
    template <int Step>
    FIRTH_INLINE void exchange(Vec& a, Vec& b) {
        const Vec low = FIRTH_SHUFFLE(a, b, (Lane & Step ? kWidth + Lane - Step : Lane)...);
        b = FIRTH_SHUFFLE(a, b, (Lane & Step ? kWidth + Lane : Lane + Step)...);
        a = low;
    }
    template <int Step>
    FIRTH_INLINE void transpose(Vec (&rows)[kWidth]) {
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; ++i) {
            if ((i & Step) == 0) exchange<Step>(rows[i], rows[i + Step]);
        }
        if constexpr (2 * Step < kWidth) transpose<2 * Step>(rows);
    }
};
#if defined(__AVX512F__)
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#elif defined(__AVX2__)
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7>;
#else
using AllLanes = Lanes<0, 1, 2, 3>;
#endif
FIRTH_INLINE void transpose(Vec (&rows)[kWidth]) { AllLanes::transpose<1>(rows); }

}  // namespace firth::FIRTH_ISA
