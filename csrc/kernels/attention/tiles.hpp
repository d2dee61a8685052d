// The forward and the backward pass in tiles, for bf16: what both use. Widths are padded with zeros to multiples of
// kPair, so that all arrays in bf16 are computed in tiles.
#pragma once

#include "kernels/attention/scores.hpp"
#include "kernels/tiles.hpp"

#if defined(FIRTH_TILES)

namespace firth::FIRTH_ISA {
namespace {

constexpr int kTile = 16;                 // rows of a tile; a row is 16 floats, or 32 numbers in bf16
constexpr int kPair = 32;                 // rows, or floats in a row, of two tiles: products have two by two
constexpr int kTileLanes = 256;           // lanes of 32 bits in a tile
constexpr std::int64_t kTileChunk = 256;  // keys between two updates of the greatest score

FIRTH_INLINE std::int64_t in_pairs_of_tiles(std::int64_t n) { return (n + kPair - 1) / kPair * kPair; }

// Rows [begin, begin + n) of an array: in place if their width fills whole tiles, otherwise (or if `copy`) copied to
// `room` and padded with zeros.
FIRTH_INLINE HalfRows half_rows_of(const AttentionArray& array, std::int64_t batch, std::int64_t head,
                                   std::int64_t begin, std::int64_t n, int width, bool copy, std::uint16_t* room) {
    const auto* const from =
        static_cast<const std::uint16_t*>(array.data) + batch * array.batch + head * array.head + begin * array.time;
    const std::int64_t stride = in_pairs_of_tiles(width);
    if (!copy && array.column == 1 && width == stride) return {from, array.time};
    for (std::int64_t i = 0; i < n; ++i) {
        const std::uint16_t* const row = from + i * array.time;
        std::uint16_t* const to = room + i * stride;
        if (array.column == 1) {
            __builtin_memcpy(to, row, 2 * static_cast<std::size_t>(width));
        } else {
            for (int d = 0; d < width; ++d) to[d] = row[d * array.column];
        }
        for (std::int64_t d = width; d < stride; ++d) to[d] = 0;
    }
    return {room, stride};
}

// Transposes 16 rows of 16 lanes: a column becomes 16 lanes, to_stride lanes after the one before it. Rows beyond n
// count as zeros and are not read.
FIRTH_INLINE void transpose_tile(const std::uint16_t* rows, std::int64_t stride, std::int64_t n, std::uint32_t* to,
                                 std::int64_t to_stride) {
#if defined(__AVX512F__)
    Vec block[kWidth];
    if (n >= kTile) {
#pragma GCC unroll 16
        for (int i = 0; i < kTile; ++i) block[i] = reinterpret_cast<Vec>(_mm512_loadu_si512(rows + i * stride));
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < kTile; ++i) {
            block[i] = i < n ? reinterpret_cast<Vec>(_mm512_loadu_si512(rows + i * stride)) : Vec{};
        }
    }
    transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < kTile; ++i) _mm512_store_si512(to + i * to_stride, reinterpret_cast<__m512i>(block[i]));
#else
    for (int i = 0; i < kTile; ++i) {
        const std::uint16_t* const row = rows + i * stride;
        for (int l = 0; l < kTile; ++l) {
            to[l * to_stride + i] = i < n ? row[2 * l] | static_cast<std::uint32_t>(row[2 * l + 1]) << 16 : 0;
        }
    }
#endif
}

// Packs n rows as the right factor of products with other rows, that is, transposed: tiles (n / 16, width / 32).
FIRTH_INLINE void pack_columns(const HalfRows& rows, std::int64_t n, int width, std::uint32_t* to) {
    for (std::int64_t i = 0; i < in_pairs_of_tiles(n); i += kTile) {
        for (int d = 0; d < width; d += kPair, to += kTileLanes) {
            transpose_tile(rows[i] + d, rows.stride, n - i, to, kTile);
        }
    }
}

// Packs n rows as the right factor of products with weights: tiles (n / 32, width / 16), in which a lane holds the
// numbers of two rows. Rows beyond n count as zeros and are not read.
FIRTH_INLINE void pack_rows(const HalfRows& rows, std::int64_t n, int width, std::uint32_t* to) {
    const int across = width / kTile;
    for (std::int64_t i = 0; i < in_pairs_of_tiles(n); i += 2) {
        const std::uint16_t *const a = rows[i], *const b = rows[i + 1];
        std::uint32_t* at = to + i / kPair * across * kTileLanes + i % kPair / 2 * kTile;
        for (int d = 0; d < width; d += kTile, at += kTileLanes) {
#if defined(__AVX512F__)
            __m512i low{}, high{};
            if (i < n) low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + d)));
            if (i + 1 < n) high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + d)));
            _mm512_store_si512(at, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
#else
            for (int l = 0; l < kTile; ++l) {
                at[l] = (i < n ? a[d + l] : 0u) | (i + 1 < n ? static_cast<std::uint32_t>(b[d + l]) << 16 : 0u);
            }
#endif
        }
    }
}

// Whether all numbers are finite, of n lanes of two numbers in bf16.
bool all_finite(const std::uint32_t* pairs, std::int64_t n) {
    typedef std::int32_t Bits __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));
    VecInt bad{};
    for (std::int64_t j = 0; j < n; j += kWidth) {
        const VecInt x = *reinterpret_cast<const Bits*>(pairs + j);
        bad |= ((x & 0x7F80) == 0x7F80) | ((x & 0x7F800000) == 0x7F800000);
    }
    return !any(bad);
}

// A block (16 R, 32) of a product is stored in `to`, or added to it. The left factor is rows of 32 n numbers, `stride`
// bytes apart. The right factor is n pairs of tiles: `next` lanes from pair to pair, `beside` lanes from the first tile
// of a pair to the second.
template <int R, bool Add>
FIRTH_INLINE void multiply(Tiles& tiles, const void* rows, std::int64_t stride, const std::uint32_t* columns,
                           std::int64_t next, std::int64_t beside, std::int64_t n, float* to, std::int64_t to_stride) {
    const std::int64_t bytes = 4 * to_stride;
    float* const below = to + kTile * to_stride;
    if constexpr (Add) {
        tiles.load<0>(to, bytes);
        tiles.load<1>(to + kTile, bytes);
        if constexpr (R == 2) tiles.load<2>(below, bytes);
        if constexpr (R == 2) tiles.load<3>(below + kTile, bytes);
    } else {
        tiles.zero<0>();
        tiles.zero<1>();
        if constexpr (R == 2) tiles.zero<2>();
        if constexpr (R == 2) tiles.zero<3>();
    }
    const char* row = static_cast<const char*>(rows);
    for (std::int64_t i = 0; i < n; ++i, row += 64, columns += next) {
        tiles.load<4>(row, stride);
        tiles.load<6>(columns, 64);
        tiles.multiply<0, 4, 6>();
        tiles.load<7>(columns + beside, 64);
        tiles.multiply<1, 4, 7>();
        if constexpr (R == 2) {
            tiles.load<5>(row + kTile * stride, stride);
            tiles.multiply<2, 5, 6>();
            tiles.multiply<3, 5, 7>();
        }
    }
    tiles.store<0>(to, bytes);
    tiles.store<1>(to + kTile, bytes);
    if constexpr (R == 2) tiles.store<2>(below, bytes);
    if constexpr (R == 2) tiles.store<3>(below + kTile, bytes);
}

// 2^x for x up to 126, with a relative error of at most 3e-6, far below the rounding to bf16; NaN for NaN. Below -100
// it is 0, which makes no difference beside a weight of 1; denormal results would take the processor forty times as
// long. The polynomial approximates 2^x on [0, 1) and is exactly 1 at 0.
FIRTH_INLINE Vec weight_of(Vec x) {
    const auto power = [](Vec r) FIRTH_INLINE_LAMBDA {
        Vec p = splat(1.342668553e-2f);
        p = p * r + 5.224247220e-2f;
        p = p * r + 2.412802057e-1f;
        p = p * r + 6.930448448e-1f;
        return p * r + 1.0f;
    };
#if defined(__AVX512F__)
    const auto wide = reinterpret_cast<__m512>(x);
    const Vec r = reinterpret_cast<Vec>(_mm512_reduce_ps(wide, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
    const __mmask16 there = _mm512_cmp_ps_mask(wide, _mm512_set1_ps(-100.0f), _CMP_NLT_UQ);
    return reinterpret_cast<Vec>(_mm512_maskz_scalef_ps(there, reinterpret_cast<__m512>(power(r)), wide));
#else
    const VecInt under = x < -100.0f;
    x = select(under, Vec{}, x);
    VecInt floor = __builtin_convertvector(select(x != x, Vec{}, x), VecInt);
    floor += __builtin_convertvector(floor, Vec) > x;
    const Vec p = power(x - __builtin_convertvector(floor, Vec));
    return select(under, Vec{}, p * reinterpret_cast<Vec>((floor + 127) << 23));
#endif
}

}  // namespace
}  // namespace firth::FIRTH_ISA

#endif
