// Arrays as rows of floats, and the two register blocks that take nearly all of the time:
//
//   score_panel  dot products of up to six rows with a panel of keys. The panel is transposed: each number of a row is
//                broadcast, and no sum runs across lanes. A panel is packed once for all rows that use it.
//   weigh        up to six rows of weights times rows of values; in the backward pass also times keys, queries and
//                gradients.
//
// A block is six rows by four vectors where there are 32 registers.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/count.hpp"

namespace firth::FIRTH_ISA {
namespace {

constexpr int kRows = 6;                            // of a register block
constexpr int kVectors = kRegisters == 32 ? 4 : 2;  // of a register block's columns
constexpr int kPanel = kVectors * kWidth;           // keys packed together
constexpr std::int64_t kRowsAhead = 16;             // between prefetching a row and converting it
constexpr int kChunk = 256;                         // keys between two updates of the greatest score
constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
constexpr float kInfinity = __builtin_inff(), kHighest = __FLT_MAX__;
static_assert(kAttentionBlock % kPanel == 0 && kChunk % kAttentionBlock == 0);

FIRTH_INLINE std::int64_t padded(std::int64_t n) { return (n + kWidth - 1) / kWidth * kWidth; }

// 2^x for x up to 126. Below -126 it is 2^-126. NaN for NaN. The coefficients are those of the Cephes library
// (Moshier).
FIRTH_INLINE Vec exp2_of(Vec x) {
    x = max(splat(-126.0f), x);  // in this order a NaN stays NaN
    const Vec shifted = x + 12582912.0f;
    const Vec r = x - (shifted - 12582912.0f);
    Vec p = splat(1.535336188319500e-4f);
    p = p * r + 1.339887440266574e-3f;
    p = p * r + 9.618437357674640e-3f;
    p = p * r + 5.550332471162809e-2f;
    p = p * r + 2.402264791363012e-1f;
    p = p * r + 6.931472028550421e-1f;
    p = p * r + 1.0f;
    const VecInt exponent = (reinterpret_cast<VecInt>(shifted) << 23) + 0x3F800000;
    return p * reinterpret_cast<Vec>(exponent);
}

FIRTH_INLINE float lanes_sum(Vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(reinterpret_cast<__m512>(x));
#elif defined(__aarch64__)
    return vaddvq_f32(x);
#else
    float sum = 0;
    for (int lane = 0; lane < kWidth; ++lane) sum += x[lane];
    return sum;
#endif
}
// No lane may be NaN.
FIRTH_INLINE float lanes_max(Vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(reinterpret_cast<__m512>(x));
#elif defined(__aarch64__)
    return vmaxvq_f32(x);
#else
    float most = x[0];
    for (int lane = 1; lane < kWidth; ++lane) most = x[lane] > most ? x[lane] : most;
    return most;
#endif
}
FIRTH_INLINE VecInt lane_numbers() {
    VecInt n;
    for (int lane = 0; lane < kWidth; ++lane) n[lane] = lane;
    return n;
}

// --- Getting at arrays ----------------------------------------------------------------------------------------------

FIRTH_INLINE float widened(std::uint16_t bits) {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
}

// As many numbers in bf16 as a Vec has floats, and their memory.
typedef std::uint16_t VecHalf __attribute__((vector_size(2 * kWidth)));
typedef std::uint16_t VecHalfMemory __attribute__((vector_size(2 * kWidth), aligned(2), may_alias));

// Their bits, as the lower halves of lanes.
FIRTH_INLINE VecInt extended(VecHalf x) {
#if defined(__AVX512F__)  // GCC makes two halves of it
    return reinterpret_cast<VecInt>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(x)));
#elif defined(__aarch64__)  // GCC extends number by number
    return reinterpret_cast<VecInt>(vmovl_u16(x));
#else
    return __builtin_convertvector(x, VecInt);
#endif
}
FIRTH_INLINE Vec load_bf16(const std::uint16_t* p) {
    return reinterpret_cast<Vec>(extended(*reinterpret_cast<const VecHalfMemory*>(p)) << 16);
}

// To the nearest, ties to even; a NaN stays one.
FIRTH_INLINE std::uint16_t narrowed(float x) {
    const auto bits = __builtin_bit_cast(std::uint32_t, x);
    if (x != x) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
FIRTH_INLINE VecHalf narrowed(Vec x) {
#if defined(__AVX512BF16__)
    return reinterpret_cast<VecHalf>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x)));
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return vreinterpret_u16_bf16(vcvt_bf16_f32(x));
#else
    typedef std::uint32_t VecBits __attribute__((vector_size(4 * kWidth)));
    const auto bits = reinterpret_cast<VecBits>(x);
    const auto nearest = reinterpret_cast<Vec>(bits + 0x7FFF + (bits >> 16 & 1));
    const auto nan = reinterpret_cast<Vec>(bits | 0x400000);
    return __builtin_convertvector(reinterpret_cast<VecBits>(select(x == x, nearest, nan)) >> 16, VecHalf);
#endif
}
FIRTH_INLINE void store_bf16(std::uint16_t* p, Vec x) { *reinterpret_cast<VecHalfMemory*>(p) = narrowed(x); }

// A vector of floats, whatever the type of its numbers in memory.
FIRTH_INLINE Vec load_any(const float* p) { return load(p); }
FIRTH_INLINE Vec load_any(const std::uint16_t* p) { return load_bf16(p); }

// Rows of numbers: floats or, in bf16, std::uint16_t.
template <class Number>
struct RowsOf {
    const Number* data;
    std::int64_t stride;
    const Number* operator[](std::int64_t i) const { return data + i * stride; }
};
using Rows = RowsOf<float>;
using HalfRows = RowsOf<std::uint16_t>;

// Prefetches n numbers of a row that comes after `row`, far enough that memory delivers it in time. The processor's own
// prefetching does not follow rows so well.
template <class Number>
FIRTH_INLINE void prefetch_ahead(const Number* row, std::int64_t stride, int n) {
    constexpr int kSize = static_cast<int>(sizeof(Number));
    const Number* const coming = row + kRowsAhead * 4 / kSize * stride;
    for (int d = 0; d < n; d += 64 / kSize) __builtin_prefetch(coming + d);
}

// Rows [begin, begin + n) of an array: in place if they are contiguous floats and, where whole vectors are read, their
// width is a multiple of kWidth. Otherwise they are copied to `room` and padded with zeros.
FIRTH_INLINE Rows rows_of(const Attention& task, const AttentionArray& array, std::int64_t batch, std::int64_t head,
                          std::int64_t begin, std::int64_t n, int width, bool vectors, float* room) {
    const std::int64_t at = batch * array.batch + head * array.head + begin * array.time;
    if (!task.bf16 && array.column == 1 && (!vectors || width % kWidth == 0)) {
        return {static_cast<const float*>(array.data) + at, array.time};
    }
    const std::int64_t stride = padded(width);
    for (std::int64_t i = 0; i < n; ++i) {
        float* const to = room + i * stride;
        const std::int64_t row = at + i * array.time;
        if (task.bf16) {
            const auto* const from = static_cast<const std::uint16_t*>(array.data) + row;
            if (array.column == 1) {
                // Row by row, loads would wait for memory: later rows are prefetched.
                const std::uint16_t* const coming = from + kRowsAhead * array.time;
                int d = 0;
                for (; d + kWidth <= width; d += kWidth) {
                    if (d % 32 == 0) __builtin_prefetch(coming + d, 0, 2);
                    store(to + d, load_bf16(from + d));
                }
                for (; d < width; ++d) to[d] = widened(from[d]);
            } else {
                for (int d = 0; d < width; ++d) to[d] = widened(from[d * array.column]);
            }
        } else {
            const auto* const from = static_cast<const float*>(array.data) + row;
            for (int d = 0; d < width; ++d) to[d] = from[d * array.column];
        }
        for (std::int64_t d = width; d < stride; ++d) to[d] = 0;
    }
    return {room, stride};
}

FIRTH_INLINE void write_row(const Attention& task, const AttentionArray& array, std::int64_t batch, std::int64_t head,
                            std::int64_t i, int width, const float* row) {
    const std::int64_t at = batch * array.batch + head * array.head + i * array.time;
    if (task.bf16) {
        auto* const to = static_cast<std::uint16_t*>(array.data) + at;
        int d = 0;
        if (array.column == 1) {
            for (; d + kWidth <= width; d += kWidth) store_bf16(to + d, load(row + d));
        }
        for (; d < width; ++d) to[d * array.column] = narrowed(row[d]);
    } else {
        auto* const to = static_cast<float*>(array.data) + at;
        if (array.column == 1) {
            for (int d = 0; d < width; ++d) to[d] = row[d];
        } else {
            for (int d = 0; d < width; ++d) to[d * array.column] = row[d];
        }
    }
}

// Whether the product of each number with zero is zero.
bool all_finite(const Rows& rows, std::int64_t n, int width) {
    Vec zeros{};
    for (std::int64_t i = 0; i < n; ++i) {
        const float* const row = rows[i];
        int d = 0;
        for (; d + kWidth <= width; d += kWidth) zeros += load(row + d) * 0.0f;
        for (; d < width; ++d) zeros += splat(row[d] * 0.0f);
    }
    return !any_nan(zeros);
}

// Packs n rows of `width` lanes into panels of kPanel rows, each (width, kPanel); rows beyond n are zeros.
void pack(const Rows& rows, std::int64_t n, int width, float* panels) {
    alignas(64) float tail[kWidth * kWidth];
    for (std::int64_t p = 0; p < n; p += kPanel, panels += static_cast<std::int64_t>(width) * kPanel) {
        for (int first = 0; first < kPanel; first += kWidth) {
            const std::int64_t there = n - p - first;
            if (there <= 0) {
                for (int d = 0; d < width; ++d) store(panels + d * kPanel + first, Vec{});
                continue;
            }
            for (int d = 0; d < width; d += kWidth) {
                Vec block[kWidth];
                if (there >= kWidth && d + kWidth <= width) {
#pragma GCC unroll 16
                    for (int i = 0; i < kWidth; ++i) block[i] = load(rows[p + first + i] + d);
                } else {
                    const int numbers = width - d < kWidth ? width - d : kWidth;
                    for (int i = 0; i < kWidth; ++i) {
                        for (int l = 0; l < kWidth; ++l) {
                            tail[i * kWidth + l] = i < there && l < numbers ? rows[p + first + i][d + l] : 0.0f;
                        }
                    }
#pragma GCC unroll 16
                    for (int i = 0; i < kWidth; ++i) block[i] = load(tail + i * kWidth);
                }
                transpose(block);
#pragma GCC unroll 16
                for (int l = 0; l < kWidth; ++l) {
                    if (d + l < width) store(panels + (d + l) * kPanel + first, block[l]);
                }
            }
        }
    }
}

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define FIRTH_HALVES  // bf16 is multiplied without conversion

// Whether rows may be read as lanes of two numbers each.
FIRTH_INLINE bool in_pairs(const AttentionArray& array, int width) {
    const std::int64_t strides = array.batch | array.head | array.time;
    return width % 2 == 0 && array.column == 1 && strides % 2 == 0 &&
           reinterpret_cast<std::uintptr_t>(array.data) % 4 == 0;
}
FIRTH_INLINE Rows pairs_of(const AttentionArray& array, std::int64_t batch, std::int64_t head, std::int64_t begin) {
    const std::int64_t at = batch * array.batch + head * array.head + begin * array.time;
    return {reinterpret_cast<const float*>(static_cast<const std::uint16_t*>(array.data) + at), array.time / 2};
}

// Lanes with a number of each.
FIRTH_INLINE Vec paired(VecHalf low, VecHalf high) {
    return reinterpret_cast<Vec>(extended(low) | extended(high) << 16);
}

// The first n numbers at p, and zeros.
FIRTH_INLINE VecHalf load_some(const std::uint16_t* p, int n) {
#if defined(__AVX512F__)
    const auto there = static_cast<__mmask16>(n < kWidth ? (1u << n) - 1 : 0xFFFF);
    return reinterpret_cast<VecHalf>(_mm256_maskz_loadu_epi16(there, p));
#else
    if (n >= kWidth) return *reinterpret_cast<const VecHalfMemory*>(p);
    VecHalf x{};
    for (int lane = 0; lane < n; ++lane) x[lane] = p[lane];
    return x;
#endif
}

// Rows 2p and 2p + 1 become row p, each lane with one number of both. Rows beyond n count as zeros.
FIRTH_INLINE Rows interleaved(const AttentionArray& array, std::int64_t batch, std::int64_t head, std::int64_t begin,
                              std::int64_t n, int width, float* room) {
    const std::int64_t stride = padded(width);
    for (std::int64_t i = 0; i < n; i += 2) {
        const auto* const a = static_cast<const std::uint16_t*>(array.data) + batch * array.batch + head * array.head +
                              (begin + i) * array.time;
        const std::uint16_t* const b = a + array.time;
        for (int d = 0; d < width; d += kWidth) {
            const VecHalf low = load_some(a + d, width - d), high = load_some(b + d, i + 1 < n ? width - d : 0);
            store(room + i / 2 * stride + d, paired(low, high));
        }
    }
    return {room, stride};
}

// Whether bf16 can be multiplied without conversion.
FIRTH_INLINE bool halves(const Attention& task) {
    return task.bf16 && in_pairs(task.q, task.width) && in_pairs(task.k, task.width) &&
           in_pairs(task.v, task.value_width);
}

#endif

// --- The register blocks --------------------------------------------------------------------------------------------

// A lane of 32 bits holds a float or, where the processor multiplies bf16, two numbers in bf16, whose two products are
// both added to a float.
struct Wide {
    static constexpr int kNumbers = 1;  // in a lane
    FIRTH_INLINE Vec broadcast(const float* lane) { return splat(*lane); }
    FIRTH_INLINE Vec multiply_add(Vec x, Vec y, Vec sum) { return x * y + sum; }
};
#if defined(__AVX512BF16__)
struct Halves {
    static constexpr int kNumbers = 2;
    FIRTH_INLINE Vec broadcast(const float* lane) { return splat_bits(lane); }
    FIRTH_INLINE Vec multiply_add(Vec x, Vec y, Vec sum) {
        return reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(x),
                                                      reinterpret_cast<__m512bh>(y)));
    }
};
#elif defined(FIRTH_HALVES)
struct Halves {
    static constexpr int kNumbers = 2;
    // Only loads: the instruction itself repeats the lane.
    FIRTH_INLINE bfloat16x4_t broadcast(const float* lane) {
        typedef std::int32_t Bits __attribute__((aligned(4), may_alias));
        return vreinterpret_bf16_s32(int32x2_t{*reinterpret_cast<const Bits*>(lane), 0});
    }
    FIRTH_INLINE Vec multiply_add(bfloat16x4_t x, Vec y, Vec sum) {
        return vbfdotq_lane_f32(sum, vreinterpretq_bf16_f32(y), x, 0);
    }
};
#endif

// scores[r * stride + j] = scale * rows[r] . key j of a panel; `width` lanes.
template <class Arithmetic, int R>
FIRTH_INLINE void score_panel(const float* const* rows, const float* panel, int width, float scale, float* scores,
                              std::int64_t stride) {
    Vec sum[R][kVectors] = {};
    for (int d = 0; d < width; ++d, panel += kPanel) {
        Vec keys[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) keys[v] = load(panel + v * kWidth);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const auto x = Arithmetic::broadcast(rows[r] + d);
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) sum[r][v] = Arithmetic::multiply_add(x, keys[v], sum[r][v]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) store(scores + r * stride + v * kWidth, sum[r][v] * scale);
    }
}

// to[r] = before[r] * to[r] + scale * sum_j weights[r * row + j * next] * from[j], over N vectors of columns.
template <class Arithmetic, int R, int N, bool Streamed, class Number>
FIRTH_INLINE void weigh_columns(const float* weights, std::int64_t row, std::int64_t next, const Number* from,
                                std::int64_t from_stride, std::int64_t n, const float* before, float scale, float* to,
                                std::int64_t to_stride) {
    Vec sum[R][N] = {};
    for (std::int64_t j = 0; j < n; ++j, from += from_stride, weights += next) {
        if constexpr (Streamed) prefetch_ahead(from, from_stride, N * kWidth);
        Vec x[N];
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v) x[v] = load_any(from + v * kWidth);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const auto weight = Arithmetic::broadcast(weights + r * row);
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) sum[r][v] = Arithmetic::multiply_add(weight, x[v], sum[r][v]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        const Vec kept = splat(before[r]);
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v) {
            float* const at = to + r * to_stride + v * kWidth;
            store(at, load(at) * kept + sum[r][v] * scale);
        }
    }
}

// The same over all columns, `vectors` of them. Streamed rows come from memory rather than from a cache.
template <class Arithmetic, int R, bool Streamed = false, class Number>
FIRTH_INLINE void weigh(const float* weights, std::int64_t row, std::int64_t next, const RowsOf<Number>& from,
                        std::int64_t n, const float* before, float scale, float* to, std::int64_t to_stride,
                        int vectors) {
    // Groups of equal size, so that none is too narrow to hide a multiplication's latency.
    constexpr int kMost = Streamed && R <= 2 ? 2 * kVectors : kVectors;
    const int groups = (vectors + kMost - 1) / kMost;
    for (int g = 0, first = 0; g < groups; ++g) {
        const int some = (vectors - first + groups - g - 1) / (groups - g);
        const Number* const x = from.data + first * kWidth;
        float* const y = to + first * kWidth;
        first += some;
        with_count<kMost>(some, [&](auto count) FIRTH_INLINE_LAMBDA {
            weigh_columns<Arithmetic, R, decltype(count)::n, Streamed>(weights, row, next, x, from.stride, n, before,
                                                                       scale, y, to_stride);
        });
    }
}

// The same one pair at a time, and only pairs whose weight is not zero: zero times NaN would be NaN.
void weigh_pairs(int r_end, const float* weights, std::int64_t row, std::int64_t next, const Rows& from, std::int64_t n,
                 const float* before, float scale, float* to, std::int64_t to_stride, int vectors) {
    for (int r = 0; r < r_end; ++r) {
        float* const at = to + r * to_stride;
        if (before != nullptr) {
            for (int d = 0; d < vectors * kWidth; ++d) at[d] *= before[r];
        }
        for (std::int64_t j = 0; j < n; ++j) {
            const float weight = weights[r * row + j * next] * scale;
            if (weight == 0) continue;
            for (int d = 0; d < vectors * kWidth; d += kWidth) store(at + d, load(at + d) + weight * load(from[j] + d));
        }
    }
}

}  // namespace
}  // namespace firth::FIRTH_ISA
