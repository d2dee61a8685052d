// All of it is two register blocks, six rows by four vectors where there are 32 registers:
//
//   score_panel  row . key for six rows and a panel of keys, which lie transposed: a row's numbers are broadcast, and
//                no sum runs across lanes. The panels are packed once for all rows that meet them.
//   weigh        six rows of weights times rows of values (backward: of keys, queries and gradients, three times more).
//
// Between the two the scores of six rows by a chunk of keys lie in the first-level cache, are moved to units of log 2,
// and become weights. Rows' greatest scores and sums are carried along from chunk to chunk (Milakov & Gimelshein 2018;
// Dao et al. 2022), one sum a lane.
//
// With AMX, in bf16, both are products of tiles instead, 32 rows by two tiles of columns (see "in tiles" below).
//
// What is hidden must not be felt, whatever it is: its weight is exactly zero, and where a zero would meet a NaN or an
// infinity in a product, that product is done one visible pair at a time.

#include "kernels/attention.hpp"

#include "kernels/arena.hpp"
#include "kernels/simd.hpp"
#include "kernels/tiles.hpp"
#include "runtime/random.hpp"

namespace firth::FIRTH_ISA {
namespace {

constexpr int kRows = 6;                            // of a register block
constexpr int kVectors = kRegisters == 32 ? 4 : 2;  // of a register block's columns
constexpr int kPanel = kVectors * kWidth;           // keys packed together
constexpr std::int64_t kRowsAhead = 16;             // between asking for a row and converting it
constexpr int kChunk = 256;                         // keys between two looks at the greatest score
constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
constexpr float kInfinity = __builtin_inff(), kHighest = __FLT_MAX__;
static_assert(kAttentionBlock % kPanel == 0 && kChunk % kAttentionBlock == 0);

FIRTH_INLINE std::int64_t padded(std::int64_t n) { return (n + kWidth - 1) / kWidth * kWidth; }

// 2^x for x up to 126; below -126 it is 2^-126; NaN for NaN. The coefficients are those of the Cephes library
// (Moshier).
FIRTH_INLINE Vec exp2_of(Vec x) {
    x = max(splat(-126.0f), x);  // in this order it lets a NaN through
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
FIRTH_INLINE Vec load_bf16(const std::uint16_t* p) {
#if defined(__AVX512F__)  // GCC makes two halves of it
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return reinterpret_cast<Vec>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
#else
    typedef std::uint16_t Halves __attribute__((vector_size(2 * kWidth), aligned(2), may_alias));
    return reinterpret_cast<Vec>(__builtin_convertvector(*reinterpret_cast<const Halves*>(p), VecInt) << 16);
#endif
}
// To the nearest, ties to even; a NaN stays one.
FIRTH_INLINE std::uint16_t narrowed(float x) {
    const auto bits = __builtin_bit_cast(std::uint32_t, x);
    if (x != x) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

FIRTH_INLINE void store_bf16(std::uint16_t* p, Vec x) {
#if defined(__AVX512BF16__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x))));
#else
    for (int lane = 0; lane < kWidth; ++lane) p[lane] = narrowed(x[lane]);
#endif
}

// Rows of floats.
struct Rows {
    const float* data;
    std::int64_t stride;
    const float* operator[](std::int64_t i) const { return data + i * stride; }
};

// Rows [begin, begin + n) of an array, as they lie if they are floats one after the other and, where whole vectors are
// to be read, end with one; otherwise copied to `room`, zeros behind them.
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
                // A row at a time, memory is waited for: lines of rows to come are asked for.
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

// Whether a product with zero may be something else than zero.
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

// Packs n rows of `width` lanes into panels of kPanel rows, each (width, kPanel); zeros in the place of rows beyond n.
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

#if defined(__AVX512BF16__)

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

// Rows 2p and 2p + 1 become row p, in each lane a number of both; a row of zeros stands in for one beyond n.
FIRTH_INLINE Rows interleaved(const AttentionArray& array, std::int64_t batch, std::int64_t head, std::int64_t begin,
                              std::int64_t n, int width, float* room) {
    const std::int64_t stride = padded(width);
    for (std::int64_t i = 0; i < n; i += 2) {
        const auto* const a = static_cast<const std::uint16_t*>(array.data) + batch * array.batch + head * array.head +
                              (begin + i) * array.time;
        const std::uint16_t* const b = a + array.time;
        for (int d = 0; d < width; d += kWidth) {
            const auto there = static_cast<__mmask16>(width - d < kWidth ? (1u << (width - d)) - 1 : 0xFFFF);
            const __m256i low = _mm256_maskz_loadu_epi16(there, a + d);
            const __m256i high = _mm256_maskz_loadu_epi16(i + 1 < n ? there : 0, b + d);
            _mm512_storeu_si512(
                room + i / 2 * stride + d,
                _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16)));
        }
    }
    return {room, stride};
}

// Whether bf16 can be multiplied as it lies.
FIRTH_INLINE bool halves(const Attention& task) {
    return task.bf16 && in_pairs(task.q, task.width) && in_pairs(task.k, task.width) &&
           in_pairs(task.v, task.value_width);
}

FIRTH_INLINE __m256i rounded(const float* p) {
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(load(p))));
}

#endif

// --- The register blocks --------------------------------------------------------------------------------------------

// A lane of 32 bits holds a float; or, where the processor multiplies them, two numbers in bf16, whose two products are
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
            const Vec x = Arithmetic::broadcast(rows[r] + d);
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
template <class Arithmetic, int R, int N>
FIRTH_INLINE void weigh_columns(const float* weights, std::int64_t row, std::int64_t next, const float* from,
                                std::int64_t from_stride, std::int64_t n, const float* before, float scale, float* to,
                                std::int64_t to_stride) {
    Vec sum[R][N] = {};
    for (std::int64_t j = 0; j < n; ++j, from += from_stride, weights += next) {
        Vec x[N];
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) x[v] = load(from + v * kWidth);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const Vec weight = Arithmetic::broadcast(weights + r * row);
#pragma GCC unroll 4
            for (int v = 0; v < N; ++v) sum[r][v] = Arithmetic::multiply_add(weight, x[v], sum[r][v]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        const Vec kept = splat(before[r]);
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) {
            float* const at = to + r * to_stride + v * kWidth;
            store(at, load(at) * kept + sum[r][v] * scale);
        }
    }
}

// The same over all columns, `vectors` of them.
template <class Arithmetic, int R>
FIRTH_INLINE void weigh(const float* weights, std::int64_t row, std::int64_t next, const Rows& from, std::int64_t n,
                        const float* before, float scale, float* to, std::int64_t to_stride, int vectors) {
    // Groups of equal size, so that none is too narrow to hide a multiplication's latency.
    const int groups = (vectors + kVectors - 1) / kVectors;
    for (int g = 0, first = 0; g < groups; ++g) {
        const int some = (vectors - first + groups - g - 1) / (groups - g);
        const float* const x = from.data + first * kWidth;
        float* const y = to + first * kWidth;
        first += some;
        switch (some) {
            case 1:
                weigh_columns<Arithmetic, R, 1>(weights, row, next, x, from.stride, n, before, scale, y, to_stride);
                break;
            case 2:
                weigh_columns<Arithmetic, R, 2>(weights, row, next, x, from.stride, n, before, scale, y, to_stride);
                break;
            case 3:
                if constexpr (kVectors > 2)
                    weigh_columns<Arithmetic, R, 3>(weights, row, next, x, from.stride, n, before, scale, y, to_stride);
                break;
            default:
                if constexpr (kVectors > 2)
                    weigh_columns<Arithmetic, R, 4>(weights, row, next, x, from.stride, n, before, scale, y, to_stride);
        }
    }
}

// The same one pair at a time, and only those whose weight is not zero: for what a zero must not meet.
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

// Calls work with 1 .. kRows as a constant.
template <int N>
struct Count {
    static constexpr int value = N;
};
template <class Work>
FIRTH_INLINE void with_rows(int n, Work&& work) {
    switch (n) {
        case 1:
            return work(Count<1>{});
        case 2:
            return work(Count<2>{});
        case 3:
            return work(Count<3>{});
        case 4:
            return work(Count<4>{});
        case 5:
            return work(Count<5>{});
        default:
            return work(Count<6>{});
    }
}

// --- Scores as they count -------------------------------------------------------------------------------------------

// The numbers of a term that belong to up to kWidth keys, from key j on.
FIRTH_INLINE Vec fetch(const float* row, std::int64_t stride, std::int64_t j, std::int64_t n) {
    if (stride == 1 && n >= kWidth) return load(row + j);
    Vec x{};
    for (int lane = 0; lane < kWidth && lane < n; ++lane) x[lane] = row[(j + lane) * stride];
    return x;
}
// -1 where a key may be seen.
FIRTH_INLINE VecInt fetch(const unsigned char* row, std::int64_t stride, std::int64_t j, std::int64_t n) {
    if (stride == 1 && n >= kWidth) {
        typedef unsigned char Bytes __attribute__((vector_size(kWidth), aligned(1), may_alias));
        return __builtin_convertvector(*reinterpret_cast<const Bytes*>(row + j), VecInt) != 0;
    }
    VecInt seen{};
    for (int lane = 0; lane < kWidth && lane < n; ++lane) seen[lane] = row[(j + lane) * stride] != 0 ? -1 : 0;
    return seen;
}

template <class T>
FIRTH_INLINE T* row_of(const AttentionTerm<T>& term, std::int64_t batch, std::int64_t head, std::int64_t query) {
    return term.data + batch * term.batch + head * term.head + query * term.query;
}

// One query of one head.
struct Query {
    std::int64_t batch, head, i;
};

FIRTH_INLINE bool any(VecInt mask) {
#if defined(__AVX512F__)
    const auto lanes = reinterpret_cast<__m512i>(mask);
    return _mm512_test_epi32_mask(lanes, lanes) != 0;
#else
    std::int32_t found = 0;
    for (int lane = 0; lane < kWidth; ++lane) found |= mask[lane];
    return found != 0;
#endif
}

// Scores of the keys [first, last), of which the first stands at scores[0].
struct Scores {
    float* scores;
    std::int64_t first, last;
};

// Adds a term, in units of log 2; minus infinity hides, whatever the score was, and what is hidden stays so. True if
// there is such a key. A sum is no less than the lowest float, with which others write masks: it does not hide a key
// from a query that sees no better one.
bool add_term(const AttentionTerm<const float>& term, const Query& query, const Scores& to) {
    const float* const row = row_of(term, query.batch, query.head, query.i);
    VecInt hidden{};
    for (std::int64_t j = to.first; j < to.last; j += kWidth) {
        float* const at = to.scores + (j - to.first);
        const Vec more = fetch(row, term.key, j, to.last - j);
        const Vec score = load(at);
        const VecInt hide = (more == -kInfinity) | (score == -kInfinity);
        store(at, select(hide, splat(-kInfinity), max(splat(-kHighest), score + more * kLog2e)));
        hidden |= hide;
    }
    return any(hidden);
}

// Hides what may not be seen. True if there was something.
bool hide(const AttentionTerm<const unsigned char>& visible, const Query& query, const Scores& to) {
    const unsigned char* const row = row_of(visible, query.batch, query.head, query.i);
    VecInt all = splat_int(-1);
    for (std::int64_t j = to.first; j < to.last; j += kWidth) {
        float* const at = to.scores + (j - to.first);
        const VecInt seen = fetch(row, visible.key, j, to.last - j);
        store(at, select(seen, load(at), splat(-kInfinity)));
        all &= seen;
    }
    return any(~all);
}

void add_slope(float slope, std::int64_t position, const Scores& to) {
    const Vec lane = __builtin_convertvector(lane_numbers(), Vec);
    for (std::int64_t j = to.first; j < to.last; j += kWidth) {
        float* const at = to.scores + (j - to.first);
        const Vec away = lane + static_cast<float>(j - position);
        store(at, load(at) - slope * max(away, -away));
    }
}

// Moves scores from q . k times scale / ln 2, of the keys [begin, end), to what they are with all terms, in units of
// log 2, and to -infinity where the query does not see the key. True if there are such.
bool settle(const Attention& task, const Query& query, std::int64_t begin, std::int64_t end, float* scores) {
    const KeyRange range = attention_keys(task, query.batch, query.i, query.i + 1);
    const std::int64_t first = range.begin < begin ? begin : range.begin > end ? end : range.begin;
    const std::int64_t last = range.end > end ? end : range.end < first ? first : range.end;
    bool partial = first > begin || last < end;
    if (first < last) {
        // From a whole vector on, so that no vector reaches beyond the end.
        const std::int64_t from = begin + (first - begin) / kWidth * kWidth;
        const Scores to{scores + (from - begin), from, last};
        if (task.added.data) partial |= add_term(task.added, query, to);
        if (task.bias.data) partial |= add_term(task.bias, query, to);
        if (task.slopes) {
            add_slope(task.slopes[query.head] * kLog2e, query.i + task.n_keys - task.n_queries, to);
        }
        if (task.visible.data) partial |= hide(task.visible, query, to);
    }
    const VecInt lane = lane_numbers();
    for (std::int64_t j = begin; j < first; j += kWidth) {
        const VecInt out = lane < splat_int(static_cast<std::int32_t>(first - j < kWidth ? first - j : kWidth));
        store(scores + (j - begin), select(out, splat(-kInfinity), load(scores + (j - begin))));
    }
    for (std::int64_t j = begin + (last - begin) / kWidth * kWidth; j < end; j += kWidth) {
        const std::int64_t keep = last - j;
        const VecInt in = lane < splat_int(static_cast<std::int32_t>(keep < 0 ? 0 : keep < kWidth ? keep : kWidth));
        store(scores + (j - begin), select(in, load(scores + (j - begin)), splat(-kInfinity)));
    }
    return partial;
}

// Which of a query's weights stay, by a hash of (seed, head, query, key): the finalizer of Wellons's hash prospector.
struct Dropout {
    std::uint32_t threshold;
    float scale;
    std::uint64_t key;

    explicit Dropout(const Attention& task)
        : threshold(static_cast<std::uint32_t>(static_cast<double>(task.dropout) * 4294967296.0)),
          scale(1.0f / (1.0f - task.dropout)),
          key(random_key(task.seed, 0)) {}

    std::uint32_t row_key(const Attention& task, const Query& query) const {
        const std::int64_t row = (query.batch * task.n_heads + query.head) * task.n_queries + query.i;
        return static_cast<std::uint32_t>(random_at(key, static_cast<std::uint64_t>(row)));
    }
    // scale where the weight of key j + lane stays, 0 where it is dropped.
    Vec at(std::uint32_t row, std::int64_t j) const {
        typedef std::uint32_t VecBits __attribute__((vector_size(4 * kWidth)));
        VecBits x = reinterpret_cast<VecBits>(lane_numbers()) + static_cast<std::uint32_t>(j);
        x = x * 0x9E3779B1u + row;
        x ^= x >> 16;
        x *= 0x7FEB352Du;
        x ^= x >> 15;
        x *= 0x846CA68Bu;
        x ^= x >> 16;
        return select(reinterpret_cast<VecInt>(x >= threshold), splat(scale), Vec{});
    }
};

// --- Forward --------------------------------------------------------------------------------------------------------

// What rows have gathered so far.
struct Gathered {
    float* values;  // (rows, stride) sums of weights times values
    std::int64_t stride;
    float* sums;  // (rows, kWidth) of weights, one a lane
    float* most;  // (rows) greatest scores

    void clear(std::int64_t rows) const {
        for (std::int64_t i = 0; i < rows * stride; ++i) values[i] = 0;
        for (std::int64_t i = 0; i < rows * kWidth; ++i) sums[i] = 0;
        for (std::int64_t i = 0; i < rows; ++i) most[i] = -kInfinity;
    }
};

// R rows' scores of the keys [begin, end), end within kWidth of a multiple of it from begin, turn into weights;
// `before` is what the rows' earlier sums are to be multiplied by.
template <int R>
FIRTH_INLINE void weights_of(const Attention& task, const Dropout& dropout, const Query* queries, std::int64_t begin,
                             std::int64_t end, bool partial, float* scores, std::int64_t stride, const Gathered& rows,
                             std::int64_t first, float* before) {
    alignas(64) float change[kWidth < 8 ? 8 : kWidth] = {};
    float most[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        const float* const s = scores + r * stride;
        Vec greatest = splat(-kInfinity);  // and never NaN
        for (std::int64_t j = 0; j < end - begin; j += kWidth) greatest = max(load(s + j), greatest);
        const float found = lanes_max(greatest), earlier = rows.most[first + r];
        most[r] = found > earlier ? found : earlier;
        rows.most[first + r] = most[r];
        if (most[r] == -kInfinity) most[r] = 0;  // no key seen so far: every weight is 0
        change[r] = earlier - most[r];
    }
    for (int r = 0; r < R; r += kWidth) {
        const Vec was = load(change + r);
        store(before + r, select(was == -kInfinity, Vec{}, exp2_of(was)));
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        float* const s = scores + r * stride;
        Vec sum{};
        if (partial) {
            for (std::int64_t j = 0; j < end - begin; j += kWidth) {
                const Vec x = load(s + j);
                const Vec weight = select(x == -kInfinity, Vec{}, exp2_of(x - most[r]));
                sum += weight;
                store(s + j, weight);
            }
        } else {
            for (std::int64_t j = 0; j < end - begin; j += kWidth) {
                const Vec weight = exp2_of(load(s + j) - most[r]);
                sum += weight;
                store(s + j, weight);
            }
        }
        float* const sums = rows.sums + (first + r) * kWidth;
        store(sums, load(sums) * before[r] + sum);
        if (task.dropout > 0) {
            const std::uint32_t key = dropout.row_key(task, queries[r]);
            for (std::int64_t j = 0; j < end - begin; j += kWidth) {
                const Vec kept = dropout.at(key, begin + j);
                // A dropped weight is zero even if it is not a number: it is not part of the sum of values.
                store(s + j, select(kept == 0.0f, Vec{}, load(s + j) * kept));
            }
        }
    }
}

// Values of a chunk: as lanes to be multiplied and, on request, as floats.
struct Values {
    const Attention& task;
    std::int64_t batch, key_head, begin, n;
    float* room;
    Rows lanes;
    Rows wide = {nullptr, 0};
    std::int32_t infinite[kChunk + 1] = {};  // of the first i rows, how many are not finite

    // Whether a product of zero with the rows [first, last) is zero. No other rows may decide that: which ones the
    // chunk holds depends on how queries are cut into blocks, which depends on the number of threads.
    bool all_finite(std::int64_t first, std::int64_t last) {
        if (wide.data == nullptr) {
            wide = rows_of(task, task.v, batch, key_head, begin, n, task.value_width, true, room);
            for (std::int64_t i = 0; i < n; ++i) {
                const bool finite = FIRTH_ISA::all_finite({wide[i], 0}, 1, task.value_width);
                infinite[i + 1] = infinite[i] + (finite ? 0 : 1);
            }
        }
        return infinite[first] == infinite[last < n ? last : n];
    }
};

// R rows meet the keys [begin, end), whose scores are those of `scores` and whose values begin at `skip` of `values`.
template <class Arithmetic, int R>
FIRTH_INLINE void gather(const Attention& task, const Dropout& dropout, const Query* queries, std::int64_t begin,
                         std::int64_t end, float* scores, std::int64_t stride, const Gathered& rows, std::int64_t first,
                         Values& values, std::int64_t skip) {
    bool partial = false;
    const std::int64_t whole = begin + (end - begin + kWidth - 1) / kWidth * kWidth;
    for (int r = 0; r < R; ++r) partial |= settle(task, queries[r], begin, whole, scores + r * stride);
    alignas(64) float before[kWidth < 8 ? 8 : kWidth];
    weights_of<R>(task, dropout, queries, begin, whole, partial, scores, stride, rows, first, before);
    float* const to = rows.values + first * rows.stride;
    const int vectors = static_cast<int>(rows.stride / kWidth);
    const std::int64_t n = (end - begin + Arithmetic::kNumbers - 1) / Arithmetic::kNumbers;  // lanes
    if ((partial || task.dropout > 0) && !values.all_finite(skip, skip + n * Arithmetic::kNumbers)) {
        const Rows from{values.wide[skip], values.wide.stride};
        weigh_pairs(R, scores, stride, 1, from, end - begin, before, 1, to, rows.stride, vectors);
        return;
    }
    const Rows from{values.lanes[skip / Arithmetic::kNumbers], values.lanes.stride};
#if defined(__AVX512BF16__)
    if constexpr (Arithmetic::kNumbers == 2) {
        // A row's weights in half their room: whoever reads them as floats has done so.
        for (int r = 0; r < R; ++r) {
            float* const s = scores + r * stride;
            for (std::int64_t j = 0; j < whole - begin; j += kWidth) {
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(s + j / 2), rounded(s + j));
            }
        }
    }
#endif
    weigh<Arithmetic, R>(scores, stride, 1, from, n, before, 1, to, rows.stride, vectors);
}

// Room for both ways forward. `few`: rows of several heads, with keys as they lie.
struct ForwardRoom {
    float *packed, *keys, *values, *pairs, *queries, *scores;
    Gathered rows;

    ForwardRoom(Arena& arena, const Attention& task, std::int64_t n_rows) {
        const std::int64_t key = padded(task.width), value = padded(task.value_width);
        packed = arena.take<float>(kChunk * static_cast<std::int64_t>(task.width));
        keys = arena.take<float>(kChunk * key);
        values = arena.take<float>(kChunk * value);
        pairs = arena.take<float>(kChunk / 2 * value);
        queries = arena.take<float>(n_rows * key);
        scores = arena.take<float>(kRows * kChunk);
        rows.values = arena.take<float>(n_rows * value);
        rows.stride = value;
        rows.sums = arena.take<float>(n_rows * kWidth);
        rows.most = arena.take<float>(n_rows);
    }
};

// One row's end: what it gathered becomes its output and its log-sum-exp.
FIRTH_INLINE void finish(const Attention& task, const Query& query, float sum, float most, float* values) {
    const float share = sum == 0 ? 0.0f : 1.0f / sum;
    const int width = static_cast<int>(padded(task.value_width));
    for (int d = 0; d < width; d += kWidth) store(values + d, load(values + d) * share);
    write_row(task, task.out, query.batch, query.head, query.i, task.value_width, values);
    if (task.lse == nullptr) return;
    const std::int64_t row = (query.batch * task.n_heads + query.head) * task.n_queries + query.i;
    task.lse[row] = sum == 0 ? -kInfinity : most * kLn2 + __builtin_logf(sum);
}

std::int64_t few_rows(const Attention& task) { return task.n_heads / task.n_key_heads * task.n_queries; }

// --- Backward -------------------------------------------------------------------------------------------------------

struct BackwardRoom {
    struct State {
        std::int64_t batch, key_head, begin;
        int n;  // keys
        std::int64_t head, first;
        int n_queries;
        bool halves;  // keys and values are packed as bf16, and what meets them lies so, too
        bool pairs;   // there are zeros among the weights that must not meet what is not finite
        bool wide;    // what is multiplied by the slopes is not finite: they were not rounded
    };
    State* state;
    float *keys_packed, *values_packed;  // panels
    float *keys, *values, *queries, *outs;
    float *weights, *slopes;  // (kAttentionBlock, kAttentionBlock) of the block in hand: P, and dS
    float *key_sums, *value_sums;
    // Two rows a row: of keys, queries, gradients of outs; P and dS two queries a lane, dS two keys a lane.
    float *key_pairs, *query_pairs, *out_pairs, *weight_pairs, *slope_pairs, *slope_halves;

    BackwardRoom(Arena& arena, const Attention& task) {
        const std::int64_t key = padded(task.width), value = padded(task.value_width), n = kAttentionBlock;
        state = arena.take<State>(1);
        keys_packed = arena.take<float>(n * task.width);
        values_packed = arena.take<float>(n * task.value_width);
        keys = arena.take<float>(n * key);
        values = arena.take<float>(n * value);
        queries = arena.take<float>(n * key);
        outs = arena.take<float>(n * value);
        weights = arena.take<float>(n * n);
        slopes = arena.take<float>(n * n);
        key_sums = arena.take<float>(n * key);
        value_sums = arena.take<float>(n * value);
        key_pairs = arena.take<float>(n / 2 * key);
        query_pairs = arena.take<float>(n / 2 * key);
        out_pairs = arena.take<float>(n / 2 * value);
        weight_pairs = arena.take<float>(n / 2 * n);
        slope_pairs = arena.take<float>(n / 2 * n);
        slope_halves = arena.take<float>(n * n / 2);
    }
};

BackwardRoom backward_room(const Attention& task, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    return BackwardRoom(arena, task);
}

alignas(64) constexpr float kOnes[kRows] = {1, 1, 1, 1, 1, 1};

// to += scale * weights^T from, where weights has a row for each of n rows of `from`, and rows of `to` are its columns.
template <class Arithmetic>
FIRTH_INLINE void add_transposed(const float* weights, const Rows& from, int n, float scale, float* to, int n_to,
                                 int width, bool pairs) {
    const std::int64_t stride = padded(width);
    for (int first = 0; first < n_to; first += kRows) {
        const int some = n_to - first < kRows ? n_to - first : kRows;
        if (pairs) {
            weigh_pairs(some, weights + first, 1, kAttentionBlock, from, n, kOnes, scale, to + first * stride, stride,
                        static_cast<int>(stride / kWidth));
            continue;
        }
        with_rows(some, [&](auto count) __attribute__((always_inline)) {
            weigh<Arithmetic, decltype(count)::value>(weights + first, 1, kAttentionBlock, from, n, kOnes, scale,
                                                      to + first * stride, stride, static_cast<int>(stride / kWidth));
        });
    }
}

// Gradients of scores, dS = P (dP - delta) with dP = dO v^T, of R queries by the block's keys.
template <class Arithmetic, int R>
FIRTH_INLINE bool slopes_of(const Attention& task, const AttentionGradients& gradients, const BackwardRoom& room,
                            const Dropout& dropout, const Query* queries, const float* const* rows,
                            const float* const* outs, float* weights, float* slopes) {
    const BackwardRoom::State& state = *room.state;
    const std::int64_t begin = state.begin;
    const int whole = (state.n + kWidth - 1) / kWidth * kWidth;
    const int key_lanes = task.width / Arithmetic::kNumbers, value_lanes = task.value_width / Arithmetic::kNumbers;
    for (std::int64_t j = 0; j < state.n; j += kPanel) {
        score_panel<Arithmetic, R>(rows, room.keys_packed + j * key_lanes, key_lanes, task.scale * kLog2e, weights + j,
                                   kAttentionBlock);
        score_panel<Arithmetic, R>(outs, room.values_packed + j * value_lanes, value_lanes, 1, slopes + j,
                                   kAttentionBlock);
    }
    bool any = false;
    for (int r = 0; r < R; ++r) {
        float* const p = weights + r * kAttentionBlock;
        float* const s = slopes + r * kAttentionBlock;
        const bool partial = settle(task, queries[r], begin, begin + whole, p);
        any |= partial;
        const std::int64_t row = (queries[r].batch * task.n_heads + queries[r].head) * task.n_queries + queries[r].i;
        const float lse = task.lse[row] == -kInfinity ? 0.0f : task.lse[row] * kLog2e;
        const float delta = gradients.delta[row];
        const std::uint32_t key = task.dropout > 0 ? dropout.row_key(task, queries[r]) : 0;
        for (int j = 0; j < whole; j += kWidth) {
            const Vec x = load(p + j);
            // At most 1, also where scores are so huge that lse has lost their differences.
            Vec weight = exp2_of(min(Vec{}, x - lse)), gradient = load(s + j);
            const VecInt hidden = x == -kInfinity;
            if (partial) weight = select(hidden, Vec{}, weight);
            Vec dropped = weight;
            if (task.dropout > 0) {
                const Vec kept = dropout.at(key, begin + j);
                gradient = select(kept == 0.0f, Vec{}, gradient * kept);
                dropped = select(kept == 0.0f, Vec{}, weight * kept);
            }
            Vec slope = weight * (gradient - delta);
            if (partial) slope = select(hidden, Vec{}, slope);
            store(p + j, dropped);
            store(s + j, slope);
        }
    }
    return any;
}

// Adds gradients of scores to those of the bias, from key `begin` on.
void add_bias(const AttentionTerm<float>& bias, const Query& query, std::int64_t begin, int n, const float* slopes) {
    float* const to = row_of(bias, query.batch, query.head, query.i);
    if (bias.key == 1) {
        for (int j = 0; j < n; ++j) to[begin + j] += slopes[j];
    } else {
        for (int j = 0; j < n; ++j) to[(begin + j) * bias.key] += slopes[j];
    }
}

// Walks over the keys that the queries [begin, end) see, chunk by chunk, and calls meet(R, queries, low, high, first,
// values, skip) for up to kRows of them with the keys [low, high): their scores stand in room.scores, the first of the
// queries is number `first`, and the first of the keys number `skip` of `values`.
template <class Arithmetic, class Meet>
FIRTH_INLINE void walk(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                       std::int64_t end, const ForwardRoom& room, bool with_values, Meet&& meet) {
    const std::int64_t key_head = head / (task.n_heads / task.n_key_heads);
    const int lanes = task.width / Arithmetic::kNumbers;
    const auto rows_in_lanes = [&](const AttentionArray& array, std::int64_t h, std::int64_t from, std::int64_t n,
                                   float* copies) __attribute__((always_inline)) {
#if defined(__AVX512BF16__)
        if constexpr (Arithmetic::kNumbers == 2) return pairs_of(array, batch, h, from);
#endif
        return rows_of(task, array, batch, h, from, n, task.width, false, copies);
    };
    const Rows queries = rows_in_lanes(task.q, head, begin, end - begin, room.queries);
    const KeyRange all = attention_keys(task, batch, begin, end);
    // In whole lanes, so that a lane holds the same keys however queries are cut into blocks.
    const std::int64_t even = (all.end + Arithmetic::kNumbers - 1) / Arithmetic::kNumbers * Arithmetic::kNumbers;
    const std::int64_t last = even < task.n_keys ? even : task.n_keys;
    for (std::int64_t chunk = all.begin / kChunk * kChunk; chunk < all.end; chunk += kChunk) {
        const std::int64_t from = chunk > all.begin ? chunk : all.begin / kPanel * kPanel;
        const std::int64_t to = chunk + kChunk < last ? chunk + kChunk : last;
        pack(rows_in_lanes(task.k, key_head, from, to - from, room.keys), to - from, lanes, room.packed);
        Values values{task, batch, key_head, from, to - from, room.values, {nullptr, 0}};
        if (with_values) {
            if constexpr (Arithmetic::kNumbers == 1) {
                values.lanes =
                    rows_of(task, task.v, batch, key_head, from, to - from, task.value_width, true, room.values);
            }
#if defined(__AVX512BF16__)
            if constexpr (Arithmetic::kNumbers == 2) {
                values.lanes = interleaved(task.v, batch, key_head, from, to - from, task.value_width, room.pairs);
            }
#endif
        }
        for (std::int64_t i = begin; i < end; i += kRows) {
            const int some = end - i < kRows ? static_cast<int>(end - i) : kRows;
            const KeyRange seen = attention_keys(task, batch, i, i + some);
            const std::int64_t low = seen.begin > from ? from + (seen.begin - from) / kPanel * kPanel : from;
            const std::int64_t high = seen.end < to ? seen.end : to;
            if (low >= high) continue;
            const float* rows[kRows];
            Query of[kRows];
            for (int r = 0; r < some; ++r) {
                rows[r] = queries[i - begin + r];
                of[r] = {batch, head, i + r};
            }
            with_rows(some, [&](auto count) __attribute__((always_inline)) {
                constexpr int R = decltype(count)::value;
                for (std::int64_t j = low; j < high; j += kPanel) {
                    score_panel<Arithmetic, R>(rows, room.packed + (j - from) * lanes, lanes, task.scale * kLog2e,
                                               room.scores + (j - low), kChunk);
                }
                meet(count, of, low, high, i - begin, values, low - from);
            });
        }
    }
}

template <class Arithmetic>
FIRTH_INLINE void forward(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                          std::int64_t end, const ForwardRoom& room) {
    const Dropout dropout(task);
    room.rows.clear(end - begin);
    walk<Arithmetic>(task, batch, head, begin, end, room, true,
                     [&](auto count, const Query* of, std::int64_t low, std::int64_t high, std::int64_t first,
                         Values& values, std::int64_t skip) __attribute__((always_inline)) {
                         gather<Arithmetic, decltype(count)::value>(task, dropout, of, low, high, room.scores, kChunk,
                                                                    room.rows, first, values, skip);
                     });
    for (std::int64_t i = 0; i < end - begin; ++i) {
        finish(task, {batch, head, begin + i}, lanes_sum(load(room.rows.sums + i * kWidth)), room.rows.most[i],
               room.rows.values + i * room.rows.stride);
    }
}

#if defined(FIRTH_TILES)

// --- Forward, in tiles ----------------------------------------------------------------------------------------------

// For bf16 where there are tiles. The scores of kPair queries by a chunk of keys are computed, become weights in bf16
// in the same memory, and are multiplied with the values. Widths are padded with zeros to multiples of kPair, so that
// all arrays in bf16 are computed in tiles.
constexpr int kTile = 16;                 // rows of a tile; a row is 16 floats, or 32 numbers in bf16
constexpr int kPair = 32;                 // rows, or floats in a row, of two tiles: products have two by two
constexpr int kTileLanes = 256;           // lanes of 32 bits in a tile
constexpr std::int64_t kTileChunk = 256;  // keys between two updates of the greatest score

FIRTH_INLINE std::int64_t in_pairs_of_tiles(std::int64_t n) { return (n + kPair - 1) / kPair * kPair; }

// Rows of numbers in bf16.
struct HalfRows {
    const std::uint16_t* data;
    std::int64_t stride;
    const std::uint16_t* operator[](std::int64_t i) const { return data + i * stride; }
};

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
    const auto power = [](Vec r) __attribute__((always_inline)) {
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

// Scores of a row, times `unit` in units of log 2, become weights of n keys: floats (Wide), or bf16 in the first half
// of the same memory. Returns the sums of the weights, one per lane, before dropout and rounding.
template <bool Drop, bool Wide>
FIRTH_INLINE Vec weights_of_row(float* scores, std::int64_t n, float unit, float most, const Dropout& dropout,
                                std::uint32_t key, std::int64_t begin) {
    Vec sums[2] = {};
    for (std::int64_t j = 0; j < n; j += 2 * kWidth) {
        Vec weights[2];
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            // Subtracted first, so that the weight of the greatest score is 1 however large it is.
            weights[v] = weight_of((load(scores + j + v * kWidth) - most) * unit);
            sums[v] += weights[v];
            if constexpr (Drop) {
                const Vec kept = dropout.at(key, begin + j + v * kWidth);
                // A dropped weight is zero even if it was NaN: its value is not added at all.
                weights[v] = select(kept == 0.0f, Vec{}, weights[v] * kept);
            }
        }
        if constexpr (Wide) {
            store(scores + j, weights[0]);
            store(scores + j + kWidth, weights[1]);
        } else {
            auto* const to = reinterpret_cast<std::uint16_t*>(scores) + j;
#if defined(__AVX512BF16__)
            _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(
                                        reinterpret_cast<__m512>(weights[1]), reinterpret_cast<__m512>(weights[0]))));
#else
            store_bf16(to, weights[0]);
            store_bf16(to + kWidth, weights[1]);
#endif
        }
    }
    return sums[0] + sums[1];
}

struct TileRoom {
    std::uint16_t *queries, *copies;
    std::uint32_t *keys, *values;
    float *scores, *wide;
    Gathered rows;

    TileRoom(Arena& arena, const Attention& task) {
        const std::int64_t key = in_pairs_of_tiles(task.width), value = in_pairs_of_tiles(task.value_width);
        const std::int64_t n = in_pairs_of_tiles(kAttentionQueries);
        queries = arena.take<std::uint16_t>(n * key);
        copies = arena.take<std::uint16_t>(kTileChunk * (key > value ? key : value));
        keys = arena.take<std::uint32_t>(kTileChunk * key / 2);
        values = arena.take<std::uint32_t>(kTileChunk * value / 2);
        scores = arena.take<float>(kPair * kTileChunk);
        wide = arena.take<float>(kTileChunk * value);
        rows.values = arena.take<float>(n * value);
        rows.stride = value;
        rows.sums = arena.take<float>(n * kWidth);
        rows.most = arena.take<float>(n);
    }
};

// The packed values of a chunk.
struct TileValues {
    const std::uint32_t* tiles;
    std::int64_t numbers;                    // lanes of kPair values
    signed char finite[kTileChunk / kPair];  // whether kPair values are all finite: 1 yes, 0 no, -1 not known yet

    // Whether a product of zero with the rows [first, last) is zero, and with the others that share tiles with them.
    bool all_finite(std::int64_t first, std::int64_t last) {
        bool all = true;
        for (std::int64_t i = first / kPair; i * kPair < last; ++i) {
            if (finite[i] < 0) finite[i] = FIRTH_ISA::all_finite(tiles + i * numbers, numbers) ? 1 : 0;
            all = all && finite[i];
        }
        return all;
    }
};

FIRTH_INLINE bool has_terms(const Attention& task) {
    return task.added.data || task.bias.data || task.slopes || task.visible.data;
}
// Products of queries and keys times this are scores in units of log 2. It is 1 where the products are scaled before
// they become weights: terms are added to scaled scores, and only a positive factor keeps the greatest score the
// greatest.
FIRTH_INLINE float unit_of(const Attention& task) {
    const float unit = task.scale * kLog2e;
    return has_terms(task) || !(unit > 0) ? 1.0f : unit;
}

// `some` queries (up to kPair), beginning with `query`, which is row `first` of room.rows, attend to the keys [low,
// high) of the chunk that begins with key `from`. room.scores holds their products.
FIRTH_INLINE void gather_in_tiles(Tiles& tiles, const Attention& task, const Dropout& dropout, const Query& query,
                                  int some, std::int64_t low, std::int64_t high, std::int64_t from, std::int64_t first,
                                  const TileRoom& room, TileValues& values) {
    const std::int64_t n = in_pairs_of_tiles(high - low), end = low + n;
    const bool terms = has_terms(task);
    const float unit = unit_of(task);
    bool partial = false;
    float most[kPair];
    alignas(64) float before[kPair] = {};
    for (int r = 0; r < some; ++r) {
        float* const s = room.scores + r * kTileChunk;
        const Query of{query.batch, query.head, query.i + r};
        const KeyRange seen = attention_keys(task, of.batch, of.i, of.i + 1);
        if (unit == 1) {
            for (std::int64_t j = 0; j < n; j += kWidth) store(s + j, load(s + j) * (task.scale * kLog2e));
        }
        if (terms || seen.begin > low || seen.end < end) partial |= settle(task, of, low, end, s);
        Vec greatest[2] = {splat(-kInfinity), splat(-kInfinity)};
        for (std::int64_t j = 0; j < n; j += 2 * kWidth) {
            greatest[0] = max(load(s + j), greatest[0]);
            greatest[1] = max(load(s + j + kWidth), greatest[1]);
        }
        const float found = lanes_max(max(greatest[0], greatest[1])), earlier = room.rows.most[first + r];
        most[r] = found > earlier ? found : earlier;
        room.rows.most[first + r] = most[r];
        if (most[r] == -kInfinity) most[r] = 0;  // no key seen so far: every weight is 0
        before[r] = (earlier - most[r]) * unit;
    }
    bool change = false;
    for (int r = 0; r < kPair; r += kWidth) {
        const Vec x = weight_of(load(before + r));
        store(before + r, x);
    }
    const bool wide = (partial || task.dropout > 0) && !values.all_finite(low - from, high - from);
    const std::int64_t stride = room.rows.stride;
    float* const to = room.rows.values + first * stride;
    const auto weigh_row = [&](int r) __attribute__((always_inline)) {
        float* const s = room.scores + r * kTileChunk;
        if (task.dropout > 0) {
            const std::uint32_t key = dropout.row_key(task, {query.batch, query.head, query.i + r});
            return wide ? weights_of_row<true, true>(s, n, unit, most[r], dropout, key, low)
                        : weights_of_row<true, false>(s, n, unit, most[r], dropout, key, low);
        }
        return wide ? weights_of_row<false, true>(s, n, unit, most[r], dropout, 0, low)
                    : weights_of_row<false, false>(s, n, unit, most[r], dropout, 0, low);
    };
    for (int r = 0; r < some; ++r) {
        float* const sums = room.rows.sums + (first + r) * kWidth;
        store(sums, load(sums) * before[r] + weigh_row(r));
        change |= before[r] != 1;
    }
    if (wide) {
        const Rows floats = rows_of(task, task.v, query.batch, query.head / (task.n_heads / task.n_key_heads), low,
                                    high - low, task.value_width, true, room.wide);
        weigh_pairs(some, room.scores, kTileChunk, 1, floats, high - low, before, 1, to, stride,
                    static_cast<int>(padded(task.value_width) / kWidth));
        return;
    }
    if (change) {
        for (int r = 0; r < some; ++r) {
            for (std::int64_t d = 0; d < stride; d += kWidth) {
                store(to + r * stride + d, load(to + r * stride + d) * before[r]);
            }
        }
    }
    const std::int64_t next = stride / kTile * kTileLanes;
    const std::uint32_t* columns = values.tiles + (low - from) / kPair * next;
    for (std::int64_t d = 0; d < stride; d += kPair, columns += 2 * kTileLanes) {
        if (some > kTile) {
            multiply<2, true>(tiles, room.scores, 4 * kTileChunk, columns, next, kTileLanes, n / kPair, to + d, stride);
        } else {
            multiply<1, true>(tiles, room.scores, 4 * kTileChunk, columns, next, kTileLanes, n / kPair, to + d, stride);
        }
    }
}

void forward_in_tiles(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                      std::int64_t end, const TileRoom& room) {
    Tiles tiles;
    const Dropout dropout(task);
    const std::int64_t key_head = head / (task.n_heads / task.n_key_heads);
    const auto width = static_cast<int>(in_pairs_of_tiles(task.width));
    const auto value_width = static_cast<int>(in_pairs_of_tiles(task.value_width));
    room.rows.clear(in_pairs_of_tiles(end - begin));
    half_rows_of(task.q, batch, head, begin, end - begin, task.width, true, room.queries);
    const KeyRange all = attention_keys(task, batch, begin, end);
    // In whole tiles, so that a tile holds the same keys however queries are cut into blocks.
    const std::int64_t even = in_pairs_of_tiles(all.end), last = even < task.n_keys ? even : task.n_keys;
    for (std::int64_t chunk = all.begin / kTileChunk * kTileChunk; chunk < all.end; chunk += kTileChunk) {
        const std::int64_t from = chunk > all.begin ? chunk : all.begin / kPair * kPair;
        const std::int64_t to = chunk + kTileChunk < last ? chunk + kTileChunk : last;
        pack_columns(half_rows_of(task.k, batch, key_head, from, to - from, task.width, false, room.copies), to - from,
                     width, room.keys);
        pack_rows(half_rows_of(task.v, batch, key_head, from, to - from, task.value_width, false, room.copies),
                  to - from, value_width, room.values);
        TileValues values{room.values, value_width / kTile * kTileLanes, {}};
        for (auto& finite : values.finite) finite = -1;
        for (std::int64_t i = begin; i < end; i += kPair) {
            const int some = end - i < kPair ? static_cast<int>(end - i) : kPair;
            const KeyRange seen = attention_keys(task, batch, i, i + some);
            const std::int64_t low = seen.begin > from ? from + (seen.begin - from) / kPair * kPair : from;
            const std::int64_t high = seen.end < to ? seen.end : to;
            if (low >= high) continue;
            const std::int64_t blocks = width / kPair;
            const std::uint16_t* const queries = room.queries + (i - begin) * width;
            for (std::int64_t j = low; j < high; j += kPair) {
                const std::uint32_t* const columns = room.keys + (j - from) / kTile * blocks * kTileLanes;
                float* const scores = room.scores + (j - low);
                if (some > kTile) {
                    multiply<2, false>(tiles, queries, 2 * width, columns, kTileLanes, blocks * kTileLanes, blocks,
                                       scores, kTileChunk);
                } else {
                    multiply<1, false>(tiles, queries, 2 * width, columns, kTileLanes, blocks * kTileLanes, blocks,
                                       scores, kTileChunk);
                }
            }
            gather_in_tiles(tiles, task, dropout, {batch, head, i}, some, low, high, from, i - begin, room, values);
        }
    }
    for (std::int64_t i = 0; i < end - begin; ++i) {
        finish(task, {batch, head, begin + i}, lanes_sum(load(room.rows.sums + i * kWidth)),
               room.rows.most[i] * unit_of(task), room.rows.values + i * room.rows.stride);
    }
}

// --- Backward, in tiles ---------------------------------------------------------------------------------------------

// Of the five products, three have rows of queries on the left: the scores, dP, and the queries' gradients, dS K. The
// other two, dV = P^T dO and dK = dS^T Q, sum over queries. They are computed transposed, dO^T P and Q^T dS: the left
// factors are transposed once for all blocks of keys, and P and dS are rounded to lanes that hold two queries. The
// scale of dQ and dK is applied to the finished sums.

// A block of queries, and gradients of their outputs, packed once for all blocks of keys.
struct PackedQueries {
    std::uint16_t *queries, *outs;  // (width, kAttentionBlock): transposed
    std::int32_t* finite;           // 1 if all of them are, else 0

    PackedQueries(Arena& arena, const Attention& task) {
        finite = arena.take<std::int32_t>(1);
        queries = arena.take<std::uint16_t>(in_pairs_of_tiles(task.width) * kAttentionBlock);
        outs = arena.take<std::uint16_t>(in_pairs_of_tiles(task.value_width) * kAttentionBlock);
    }
};

PackedQueries packed_queries(const Attention& task, void* packed, std::int64_t head, std::int64_t begin) {
    Arena size{nullptr};
    PackedQueries(size, task);
    const std::int64_t blocks = (task.n_queries + kAttentionBlock - 1) / kAttentionBlock;
    Arena arena{static_cast<char*>(packed) + (head * blocks + begin / kAttentionBlock) * size.used};
    return PackedQueries(arena, task);
}

struct TileBackwardRoom {
    struct State {
        std::int64_t batch, key_head, begin;
        int n;  // keys
        std::int64_t head, first;
        int n_queries;
        bool zeros;  // some weights are zero and must not be multiplied with what is not finite
    };
    State* state;
    std::uint32_t *key_columns, *value_columns, *key_rows, *weight_pairs, *slope_pairs;
    std::uint16_t *slope_rows, *queries, *outs, *copies;
    float *weights, *slopes;       // (kAttentionBlock, kAttentionBlock) of the current block: P and dS
    float *key_sums, *value_sums;  // (width, kAttentionBlock): transposed
    float *query_sums, *wide, *rows;

    TileBackwardRoom(Arena& arena, const Attention& task) {
        const std::int64_t key = in_pairs_of_tiles(task.width), value = in_pairs_of_tiles(task.value_width);
        const std::int64_t most = key > value ? key : value, n = kAttentionBlock;
        state = arena.take<State>(1);
        key_columns = arena.take<std::uint32_t>(n * key / 2);
        value_columns = arena.take<std::uint32_t>(n * value / 2);
        key_rows = arena.take<std::uint32_t>(n * key / 2);
        weight_pairs = arena.take<std::uint32_t>(n * n / 2);
        slope_pairs = arena.take<std::uint32_t>(n * n / 2);
        slope_rows = arena.take<std::uint16_t>(n * n);
        queries = arena.take<std::uint16_t>(n * key);
        outs = arena.take<std::uint16_t>(n * value);
        copies = arena.take<std::uint16_t>(n * most);
        weights = arena.take<float>(n * n);
        slopes = arena.take<float>(n * n);
        key_sums = arena.take<float>(n * key);
        value_sums = arena.take<float>(n * value);
        query_sums = arena.take<float>(n * key);
        wide = arena.take<float>(n * most);
        rows = arena.take<float>(kTile * most);
    }
};

TileBackwardRoom tile_backward_room(const Attention& task, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    return TileBackwardRoom(arena, task);
}

// Transposes n rows of a block: to (width, kAttentionBlock). `tiles` is scratch of the same size. Returns whether all
// numbers are finite.
bool pack_transposed(const HalfRows& rows, int n, int width, std::uint32_t* tiles, std::uint16_t* to) {
    pack_rows(rows, n, width, tiles);
    const bool finite = all_finite(tiles, in_pairs_of_tiles(n) / 2 * width);
    for (std::int64_t i = 0; i < in_pairs_of_tiles(n); i += kPair) {
        for (int d = 0; d < width; d += kTile, tiles += kTileLanes) {
            transpose_tile(reinterpret_cast<const std::uint16_t*>(tiles), 2 * kTile, kTile,
                           reinterpret_cast<std::uint32_t*>(to + d * kAttentionBlock + i), kAttentionBlock / 2);
        }
    }
    return finite;
}

void pack_queries(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                  std::int64_t begin, std::int64_t end, void* packed, const TileBackwardRoom& room) {
    const PackedQueries to = packed_queries(task, packed, batch * task.n_heads + head, begin);
    const auto n = static_cast<int>(end - begin);
    const auto width = static_cast<int>(in_pairs_of_tiles(task.width));
    const auto value_width = static_cast<int>(in_pairs_of_tiles(task.value_width));
    const HalfRows queries = half_rows_of(task.q, batch, head, begin, n, task.width, false, room.queries);
    const HalfRows outs = half_rows_of(gradient, batch, head, begin, n, task.value_width, false, room.outs);
    const bool finite = pack_transposed(queries, n, width, room.key_columns, to.queries);
    *to.finite = pack_transposed(outs, n, value_width, room.value_columns, to.outs) && finite ? 1 : 0;
}

void begin_keys_in_tiles(const Attention& task, std::int64_t batch, std::int64_t key_head, std::int64_t begin, int n,
                         const TileBackwardRoom& room) {
    const auto width = static_cast<int>(in_pairs_of_tiles(task.width));
    const auto value_width = static_cast<int>(in_pairs_of_tiles(task.value_width));
    *room.state = {batch, key_head, begin, n, 0, 0, 0, false};
    const HalfRows keys = half_rows_of(task.k, batch, key_head, begin, n, task.width, false, room.copies);
    pack_columns(keys, n, width, room.key_columns);
    pack_rows(keys, n, width, room.key_rows);
    pack_columns(half_rows_of(task.v, batch, key_head, begin, n, task.value_width, false, room.copies), n, value_width,
                 room.value_columns);
    for (int i = 0; i < width * kAttentionBlock; ++i) room.key_sums[i] = 0;
    for (int i = 0; i < value_width * kAttentionBlock; ++i) room.value_sums[i] = 0;
}

// Stores two vectors as lanes of two numbers in bf16.
FIRTH_INLINE void store_pairs(std::uint32_t* to, Vec low, Vec high) {
#if defined(__AVX512BF16__)
    alignas(64) static constexpr std::uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                             21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                             11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const auto both =
        reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low)));
    _mm512_store_si512(to, _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), both));
#else
    for (int l = 0; l < kWidth; ++l) {
        to[l] = narrowed(low[l]) | static_cast<std::uint32_t>(narrowed(high[l])) << 16;
    }
#endif
}

// P and dS of the queries i and i + 1 of a block, from their products with the keys in room.weights and dP in
// room.slopes. `Rest`: keys may be hidden or dropped, there may be terms, and P and dS are left in room.weights and
// room.slopes as well. Returns whether keys are hidden.
template <bool Rest>
FIRTH_INLINE bool slopes_in_tiles(const Attention& task, const AttentionGradients& gradients, const Dropout& dropout,
                                  std::int64_t begin, int i, int n, const TileBackwardRoom& room) {
    const TileBackwardRoom::State& state = *room.state;
    const int whole = static_cast<int>(in_pairs_of_tiles(state.n));
    const bool terms = has_terms(task);
    float scale[2], lse[2] = {}, delta[2] = {};
    std::uint32_t key[2] = {};
    bool hidden = false;
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
        float* const p = room.weights + (i + h) * kAttentionBlock;
        float* const s = room.slopes + (i + h) * kAttentionBlock;
        scale[h] = task.scale * kLog2e;
        if (i + h >= n) {  // no query
            scale[h] = 1;
            for (int j = 0; j < whole; j += kWidth) store(p + j, splat(-kInfinity)), store(s + j, Vec{});
            continue;
        }
        const Query query{state.batch, state.head, begin + i + h};
        const std::int64_t row = (query.batch * task.n_heads + query.head) * task.n_queries + query.i;
        lse[h] = task.lse[row] == -kInfinity ? 0.0f : task.lse[row] * kLog2e;
        delta[h] = gradients.delta[row];
        if constexpr (Rest) {
            if (task.dropout > 0) key[h] = dropout.row_key(task, query);
            const KeyRange seen = attention_keys(task, query.batch, query.i, query.i + 1);
            if (terms || seen.begin > state.begin || seen.end < state.begin + whole) {
                if (terms || scale[h] <= 0) {
                    for (int j = 0; j < whole; j += kWidth) store(p + j, load(p + j) * scale[h]);
                    scale[h] = 1;
                }
                hidden |= settle(task, query, state.begin, state.begin + whole, p);
            }
        }
    }
    const int pair = i / 2;
    const std::int64_t at = pair / kTile * (kAttentionBlock / kTile) * kTileLanes + pair % kTile * kTile;
    for (int j = 0; j < whole; j += kWidth) {
        Vec weights[2], slopes[2];
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
            float* const p = room.weights + (i + h) * kAttentionBlock + j;
            float* const s = room.slopes + (i + h) * kAttentionBlock + j;
            const Vec score = load(p);
            Vec gradient = load(s);
            // At most 1, also where scores are so huge that lse has lost their differences.
            Vec weight = weight_of(min(Vec{}, score * scale[h] - lse[h]));
            const VecInt out = score == -kInfinity;
            if constexpr (Rest) weight = select(out, Vec{}, weight);
            weights[h] = weight;
            if constexpr (Rest) {
                if (task.dropout > 0) {
                    const Vec kept = dropout.at(key[h], state.begin + j);
                    gradient = select(kept == 0.0f, Vec{}, gradient * kept);
                    weights[h] = select(kept == 0.0f, Vec{}, weight * kept);
                }
            }
            slopes[h] = weight * (gradient - delta[h]);
            if constexpr (Rest) {
                slopes[h] = select(out, Vec{}, slopes[h]);
                store(p, weights[h]);
                store(s, slopes[h]);
            }
            store_bf16(room.slope_rows + (i + h) * kAttentionBlock + j, slopes[h]);
        }
        const std::int64_t to = at + j / kTile * kTileLanes + j % kTile;
        store_pairs(room.weight_pairs + to, weights[0], weights[1]);
        store_pairs(room.slope_pairs + to, slopes[0], slopes[1]);
    }
    return hidden;
}

// sums += rows^T weights, transposed, one visible pair at a time: where a zero must not meet what is not finite.
void add_pairs_transposed(const float* weights, const Rows& rows, int n, int n_keys, int width, float* sums) {
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n_keys; ++j) {
            const float weight = weights[i * kAttentionBlock + j];
            if (weight == 0) continue;
            for (int d = 0; d < width; ++d) sums[d * kAttentionBlock + j] += weight * rows[i][d];
        }
    }
}

void meet_in_tiles(const Attention& task, const AttentionGradients& gradients, std::int64_t head, std::int64_t begin,
                   int n, const TileBackwardRoom& room) {
    TileBackwardRoom::State& state = *room.state;
    state.head = head;
    state.first = begin;
    state.n_queries = n;
    const Dropout dropout(task);
    const auto width = static_cast<int>(in_pairs_of_tiles(task.width));
    const auto value_width = static_cast<int>(in_pairs_of_tiles(task.value_width));
    const auto queries = static_cast<int>(in_pairs_of_tiles(n)), keys = static_cast<int>(in_pairs_of_tiles(state.n));
    const HalfRows q = half_rows_of(task.q, state.batch, head, begin, n, task.width, n < queries, room.queries);
    const HalfRows out =
        half_rows_of(gradients.out, state.batch, head, begin, n, task.value_width, n < queries, room.outs);
    const PackedQueries packed = packed_queries(task, gradients.packed, state.batch * task.n_heads + head, begin);
    Tiles tiles;
    for (int i = 0; i < queries; i += kPair) {
        for (int j = 0; j < keys; j += kPair) {
            const std::int64_t blocks = width / kPair, value_blocks = value_width / kPair;
            multiply<2, false>(tiles, q[i], 2 * q.stride, room.key_columns + j / kTile * blocks * kTileLanes,
                               kTileLanes, blocks * kTileLanes, blocks, room.weights + i * kAttentionBlock + j,
                               kAttentionBlock);
            multiply<2, false>(
                tiles, out[i], 2 * out.stride, room.value_columns + j / kTile * value_blocks * kTileLanes, kTileLanes,
                value_blocks * kTileLanes, value_blocks, room.slopes + i * kAttentionBlock + j, kAttentionBlock);
        }
    }
    const KeyRange first = attention_keys(task, state.batch, begin, begin + 1);
    const KeyRange last = attention_keys(task, state.batch, begin + n - 1, begin + n);
    const bool rest = has_terms(task) || task.dropout > 0 || gradients.bias.data || last.begin > state.begin ||
                      first.end < state.begin + keys;
    state.zeros = task.dropout > 0;
    if (rest) {
        for (int i = 0; i < queries; i += 2) {
            state.zeros |= slopes_in_tiles<true>(task, gradients, dropout, begin, i, n, room);
        }
        if (gradients.bias.data != nullptr) {
            for (int i = 0; i < n; ++i) {
                add_bias(gradients.bias, {state.batch, head, begin + i}, state.begin, state.n,
                         room.slopes + i * kAttentionBlock);
            }
        }
        if (state.zeros && *packed.finite == 0) {
            const Rows outs =
                rows_of(task, gradients.out, state.batch, head, begin, n, task.value_width, false, room.wide);
            add_pairs_transposed(room.weights, outs, n, state.n, task.value_width, room.value_sums);
            const Rows wide = rows_of(task, task.q, state.batch, head, begin, n, task.width, false, room.wide);
            add_pairs_transposed(room.slopes, wide, n, state.n, task.width, room.key_sums);
            return;
        }
    } else {
        for (int i = 0; i < queries; i += 2) slopes_in_tiles<false>(task, gradients, dropout, begin, i, n, room);
    }
    constexpr std::int64_t kNext = kAttentionBlock / kTile * kTileLanes;
    for (int j = 0; j < keys; j += kPair) {
        const std::int64_t at = j / kTile * kTileLanes;
        for (int d = 0; d < value_width; d += kPair) {
            multiply<2, true>(tiles, packed.outs + d * kAttentionBlock, 2 * kAttentionBlock, room.weight_pairs + at,
                              kNext, kTileLanes, queries / kPair, room.value_sums + d * kAttentionBlock + j,
                              kAttentionBlock);
        }
        for (int d = 0; d < width; d += kPair) {
            multiply<2, true>(tiles, packed.queries + d * kAttentionBlock, 2 * kAttentionBlock, room.slope_pairs + at,
                              kNext, kTileLanes, queries / kPair, room.key_sums + d * kAttentionBlock + j,
                              kAttentionBlock);
        }
    }
}

void add_queries_in_tiles(const Attention& task, const AttentionGradients& gradients, const TileBackwardRoom& room) {
    const TileBackwardRoom::State& state = *room.state;
    const std::int64_t stride = gradients.q_stride, width = in_pairs_of_tiles(task.width);
    float* const to = gradients.q + ((state.batch * task.n_heads + state.head) * task.n_queries + state.first) * stride;
    const std::int64_t keys = in_pairs_of_tiles(state.n), queries = in_pairs_of_tiles(state.n_queries);
    const std::int64_t next = width / kTile * kTileLanes;
    if (state.zeros && !all_finite(room.key_rows, keys / kPair * next)) {
        const Rows wide =
            rows_of(task, task.k, state.batch, state.key_head, state.begin, state.n, task.width, true, room.wide);
        weigh_pairs(state.n_queries, room.slopes, kAttentionBlock, 1, wide, state.n, nullptr, 1, to, stride,
                    static_cast<int>(padded(task.width) / kWidth));
        return;
    }
    Tiles tiles;
    if (queries == state.n_queries) {
        for (std::int64_t i = 0; i < queries; i += kPair) {
            for (std::int64_t d = 0; d < width; d += kPair) {
                multiply<2, true>(tiles, room.slope_rows + i * kAttentionBlock, 2 * kAttentionBlock,
                                  room.key_rows + d / kTile * kTileLanes, next, kTileLanes, keys / kPair,
                                  to + i * stride + d, stride);
            }
        }
        return;
    }
    // Rows beyond the last query belong to another head.
    for (int i = 0; i < state.n_queries; ++i) {
        for (std::int64_t d = 0; d < width; d += kWidth)
            store(room.query_sums + i * width + d, load(to + i * stride + d));
    }
    for (std::int64_t i = 0; i < queries; i += kPair) {
        for (std::int64_t d = 0; d < width; d += kPair) {
            multiply<2, true>(tiles, room.slope_rows + i * kAttentionBlock, 2 * kAttentionBlock,
                              room.key_rows + d / kTile * kTileLanes, next, kTileLanes, keys / kPair,
                              room.query_sums + i * width + d, width);
        }
    }
    for (int i = 0; i < state.n_queries; ++i) {
        for (std::int64_t d = 0; d < width; d += kWidth)
            store(to + i * stride + d, load(room.query_sums + i * width + d));
    }
}

// n rows of an array, from `begin` on: scale times sums that lie transposed.
void write_transposed(const Attention& task, const AttentionArray& array, std::int64_t batch, std::int64_t head,
                      std::int64_t begin, int n, int width, float scale, const float* sums, float* rows) {
    const std::int64_t stride = in_pairs_of_tiles(width);
    for (int first = 0; first < n; first += kTile) {
        for (std::int64_t d = 0; d < stride; d += kTile) {
            for (int i = 0; i < kTile; i += kWidth) {
                for (int l = 0; l < kTile; l += kWidth) {
                    Vec block[kWidth];
#pragma GCC unroll 16
                    for (int k = 0; k < kWidth; ++k) block[k] = load(sums + (d + l + k) * kAttentionBlock + first + i);
                    transpose(block);
#pragma GCC unroll 16
                    for (int k = 0; k < kWidth; ++k) store(rows + (i + k) * stride + d + l, block[k] * scale);
                }
            }
        }
        for (int i = first; i < n && i < first + kTile; ++i) {
            write_row(task, array, batch, head, begin + i, width, rows + (i - first) * stride);
        }
    }
}

#endif

}  // namespace

std::int64_t attention_scratch_bytes(const Attention& task) {
    Arena forward{nullptr}, backward{nullptr};
    ForwardRoom(forward, task, kAttentionQueries);
    BackwardRoom(backward, task);
    std::int64_t most = forward.used > backward.used ? forward.used : backward.used;
#if defined(FIRTH_TILES)
    Arena tiles{nullptr}, tiles_back{nullptr};
    TileRoom(tiles, task);
    TileBackwardRoom(tiles_back, task);
    most = tiles.used > most ? tiles.used : most;
    most = tiles_back.used > most ? tiles_back.used : most;
#endif
    return most;
}

std::int64_t attention_packed_bytes([[maybe_unused]] const Attention& task) {
#if defined(FIRTH_TILES)
    if (task.bf16) {
        Arena arena{nullptr};
        PackedQueries(arena, task);
        return arena.used;
    }
#endif
    return 0;
}

std::int64_t attention_rows([[maybe_unused]] const Attention& task) {
#if defined(FIRTH_TILES)
    if (task.bf16) return kPair;
#endif
    return kRows;
}

void attention_forward(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                       std::int64_t end, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
#if defined(FIRTH_TILES)
    if (task.bf16) return forward_in_tiles(task, batch, head, begin, end, TileRoom(arena, task));
#endif
    const ForwardRoom room(arena, task, kAttentionQueries);
#if defined(__AVX512BF16__)
    if (halves(task)) return forward<Halves>(task, batch, head, begin, end, room);
#endif
    forward<Wide>(task, batch, head, begin, end, room);
}

void attention_few(const Attention& task, std::int64_t batch, std::int64_t key_head, std::int64_t begin,
                   std::int64_t end, float* partial, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    const std::int64_t n_rows = few_rows(task), group = task.n_heads / task.n_key_heads;
    const ForwardRoom room(arena, task, n_rows);
    const Dropout dropout(task);
    room.rows.clear(n_rows);
    const std::int64_t width = padded(task.width);
    // Queries, times what scores are multiplied by: keys are read as they lie.
    for (std::int64_t h = 0; h < group; ++h) {
        const Rows rows = rows_of(task, task.q, batch, key_head * group + h, 0, task.n_queries, task.width, true,
                                  room.queries + h * task.n_queries * width);
        for (std::int64_t i = 0; i < task.n_queries; ++i) {
            float* const to = room.queries + (h * task.n_queries + i) * width;
            for (int d = 0; d < width; d += kWidth) store(to + d, load(rows[i] + d) * (task.scale * kLog2e));
        }
    }
    // From a whole vector on: so the vector at the end of a part, whose end is one too, holds no key of the next part.
    for (std::int64_t chunk = begin < end ? begin / kWidth * kWidth : end; chunk < end; chunk += kChunk) {
        const std::int64_t to = chunk + kChunk < end ? chunk + kChunk : end;
        const Rows keys = rows_of(task, task.k, batch, key_head, chunk, to - chunk, task.width, true, room.keys);
        Values values{task,
                      batch,
                      key_head,
                      chunk,
                      to - chunk,
                      room.values,
                      rows_of(task, task.v, batch, key_head, chunk, to - chunk, task.value_width, true, room.values)};
        for (std::int64_t first = 0; first < n_rows; first += kRows) {
            const int some = n_rows - first < kRows ? static_cast<int>(n_rows - first) : kRows;
            Query of[kRows];
            for (int r = 0; r < some; ++r) {
                const std::int64_t row = first + r;
                of[r] = {batch, key_head * group + row / task.n_queries, row % task.n_queries};
            }
            with_rows(some, [&](auto count) __attribute__((always_inline)) {
                constexpr int R = decltype(count)::value;
                const float* const queries = room.queries + first * width;
                for (std::int64_t j = 0; j < to - chunk; j += 4) {
                    // Of keys that are not there the last one stands in; what it gives is settled away.
                    const float* key[4];
                    for (int c = 0; c < 4; ++c) key[c] = keys[j + c < to - chunk ? j + c : to - chunk - 1];
                    Vec sum[R][4] = {};
                    for (int d = 0; d < width; d += kWidth) {
                        Vec x[4];
#pragma GCC unroll 4
                        for (int c = 0; c < 4; ++c) x[c] = load(key[c] + d);
#pragma GCC unroll 6
                        for (int r = 0; r < R; ++r) {
                            const Vec q = load(queries + r * width + d);
#pragma GCC unroll 4
                            for (int c = 0; c < 4; ++c) sum[r][c] += q * x[c];
                        }
                    }
#pragma GCC unroll 6
                    for (int r = 0; r < R; ++r) {
                        store4(room.scores + r * kChunk + j, sum4(sum[r][0], sum[r][1], sum[r][2], sum[r][3]));
                    }
                }
                gather<Wide, R>(task, dropout, of, chunk, to, room.scores, kChunk, room.rows, first, values, 0);
            });
        }
    }
    const std::int64_t stride = room.rows.stride;
    for (std::int64_t row = 0; row < n_rows; ++row) {
        float* const result = partial + row * attention_partial(task);
        for (std::int64_t d = 0; d < stride; ++d) result[d] = room.rows.values[row * stride + d];
        result[stride] = lanes_sum(load(room.rows.sums + row * kWidth));
        result[stride + 1] = room.rows.most[row];
    }
}

void attention_merge(const Attention& task, std::int64_t batch, std::int64_t key_head, float* partials,
                     std::int64_t n) {
    const std::int64_t n_rows = few_rows(task), group = task.n_heads / task.n_key_heads;
    const std::int64_t stride = padded(task.value_width), size = attention_partial(task);
    for (std::int64_t row = 0; row < n_rows; ++row) {
        float most = -kInfinity;
        for (std::int64_t p = 0; p < n; ++p) {
            const float found = partials[(p * n_rows + row) * size + stride + 1];
            most = found > most ? found : most;
        }
        float* const values = partials + row * size;  // the first part's, which is read first
        float sum = 0;
        for (std::int64_t p = 0; p < n; ++p) {
            const float* const part = partials + (p * n_rows + row) * size;
            const float found = part[stride + 1];
            const float share = found == -kInfinity ? 0.0f : __builtin_exp2f(found - most);
            sum += part[stride] * share;
            for (std::int64_t d = 0; d < stride; ++d) values[d] = (p == 0 ? 0.0f : values[d]) + part[d] * share;
        }
        const Query query{batch, key_head * group + row / task.n_queries, row % task.n_queries};
        finish(task, query, sum, most, values);
    }
}

void attention_deltas(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                      std::int64_t begin, std::int64_t end, float* delta, [[maybe_unused]] void* packed,
                      void* scratch) {
#if defined(FIRTH_TILES)
    if (task.bf16) {
        pack_queries(task, gradient, batch, head, begin, end, packed, tile_backward_room(task, scratch));
    }
#endif
    const BackwardRoom room = backward_room(task, scratch);
    const auto n = static_cast<int>(end - begin), width = task.value_width;
    const Rows outs = rows_of(task, task.out, batch, head, begin, n, width, true, room.values);
    const Rows moves = rows_of(task, gradient, batch, head, begin, n, width, true, room.outs);
    for (int i = 0; i < n; ++i) {
        Vec sums{};
        for (int d = 0; d < width; d += kWidth) sums += load(outs[i] + d) * load(moves[i] + d);
        delta[(batch * task.n_heads + head) * task.n_queries + begin + i] = lanes_sum(sums);
    }
}

void attention_begin_keys(const Attention& task, [[maybe_unused]] const AttentionGradients& gradients,
                          std::int64_t batch, std::int64_t key_head, std::int64_t begin, std::int64_t end,
                          void* scratch) {
    const auto n = static_cast<int>(end - begin);
#if defined(FIRTH_TILES)
    if (task.bf16) {
        return begin_keys_in_tiles(task, batch, key_head, begin, n, tile_backward_room(task, scratch));
    }
#endif
    const BackwardRoom room = backward_room(task, scratch);
    *room.state = {batch, key_head, begin, n, 0, 0, 0, false, false, false};
    for (std::int64_t i = 0; i < n * padded(task.width); ++i) room.key_sums[i] = 0;
    for (std::int64_t i = 0; i < n * padded(task.value_width); ++i) room.value_sums[i] = 0;
#if defined(__AVX512BF16__)
    room.state->halves = halves(task) && in_pairs(gradients.out, task.value_width);
    if (room.state->halves) {
        pack(pairs_of(task.k, batch, key_head, begin), n, task.width / 2, room.keys_packed);
        pack(pairs_of(task.v, batch, key_head, begin), n, task.value_width / 2, room.values_packed);
        interleaved(task.k, batch, key_head, begin, n, task.width, room.key_pairs);
        return;
    }
#endif
    pack(rows_of(task, task.k, batch, key_head, begin, n, task.width, false, room.keys), n, task.width,
         room.keys_packed);
    pack(rows_of(task, task.v, batch, key_head, begin, n, task.value_width, false, room.values), n, task.value_width,
         room.values_packed);
}

namespace {

// P and dS of a block, in `room`. True if some of them are hidden.
template <class Arithmetic>
FIRTH_INLINE bool meet(const Attention& task, const AttentionGradients& gradients, std::int64_t head,
                       std::int64_t begin, int n, const BackwardRoom& room, const Rows& queries, const Rows& outs) {
    const Dropout dropout(task);
    const std::int64_t batch = room.state->batch;
    bool partial = false;
    for (int first = 0; first < n; first += kRows) {
        const int some = n - first < kRows ? n - first : kRows;
        const float *of_query[kRows], *of_out[kRows];
        Query of[kRows];
        for (int r = 0; r < some; ++r) {
            of_query[r] = queries[first + r];
            of_out[r] = outs[first + r];
            of[r] = {batch, head, begin + first + r};
        }
        with_rows(some, [&](auto count) __attribute__((always_inline)) {
            partial |= slopes_of<Arithmetic, decltype(count)::value>(task, gradients, room, dropout, of, of_query,
                                                                     of_out, room.weights + first * kAttentionBlock,
                                                                     room.slopes + first * kAttentionBlock);
        });
    }
    if (gradients.bias.data != nullptr) {
        for (int i = 0; i < n; ++i) {
            add_bias(gradients.bias, {batch, head, begin + i}, room.state->begin, room.state->n,
                     room.slopes + i * kAttentionBlock);
        }
    }
    return partial;
}

#if defined(__AVX512BF16__)

// Two rows of floats become one, in each lane a number of both, rounded.
FIRTH_INLINE void pair_rows(const float* rows, int n, int columns, float* pairs) {
    for (int i = 0; i < n; i += 2) {
        const float* const row = rows + i * kAttentionBlock;
        for (int j = 0; j < columns; j += kWidth) {
            const __m512i low = _mm512_cvtepu16_epi32(rounded(row + j));
            const __m512i high = i + 1 < n
                                     ? _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded(row + kAttentionBlock + j)), 16)
                                     : _mm512_setzero_si512();
            _mm512_storeu_si512(pairs + i / 2 * kAttentionBlock + j, _mm512_or_si512(low, high));
        }
    }
}

#endif

}  // namespace

void attention_meet(const Attention& task, const AttentionGradients& gradients, std::int64_t head, std::int64_t begin,
                    std::int64_t end, void* scratch) {
    const auto n = static_cast<int>(end - begin);
#if defined(FIRTH_TILES)
    if (task.bf16) return meet_in_tiles(task, gradients, head, begin, n, tile_backward_room(task, scratch));
#endif
    const BackwardRoom room = backward_room(task, scratch);
    BackwardRoom::State& state = *room.state;
    state.head = head;
    state.first = begin;
    state.n_queries = n;
    const auto wide_queries = [&] {
        return rows_of(task, task.q, state.batch, head, begin, n, task.width, true, room.queries);
    };
    const auto wide_outs = [&] {
        return rows_of(task, gradients.out, state.batch, head, begin, n, task.value_width, true, room.outs);
    };
    // Where some weights are zeros, what they would be multiplied with must be finite.
    const auto may_meet_zeros = [&] {
        return all_finite(wide_outs(), n, task.value_width) && all_finite(wide_queries(), n, task.width);
    };
#if defined(__AVX512BF16__)
    if (state.halves) {
        state.pairs = meet<Halves>(task, gradients, head, begin, n, room, pairs_of(task.q, state.batch, head, begin),
                                   pairs_of(gradients.out, state.batch, head, begin)) ||
                      task.dropout > 0;
        state.wide = state.pairs && !may_meet_zeros();
        if (!state.wide) {
            const int whole = (state.n + kWidth - 1) / kWidth * kWidth, pairs = (n + 1) / 2;
            pair_rows(room.weights, n, whole, room.weight_pairs);
            pair_rows(room.slopes, n, whole, room.slope_pairs);
            for (int i = 0; i < n; ++i) {
                for (int j = 0; j < whole; j += kWidth) {
                    _mm256_storeu_si256(reinterpret_cast<__m256i*>(room.slope_halves + (i * kAttentionBlock + j) / 2),
                                        rounded(room.slopes + i * kAttentionBlock + j));
                }
            }
            const Rows outs = interleaved(gradients.out, state.batch, head, begin, n, task.value_width, room.out_pairs);
            const Rows queries = interleaved(task.q, state.batch, head, begin, n, task.width, room.query_pairs);
            add_transposed<Halves>(room.weight_pairs, outs, pairs, 1, room.value_sums, state.n, task.value_width,
                                   false);
            add_transposed<Halves>(room.slope_pairs, queries, pairs, task.scale, room.key_sums, state.n, task.width,
                                   false);
            return;
        }
        add_transposed<Wide>(room.weights, wide_outs(), n, 1, room.value_sums, state.n, task.value_width, true);
        add_transposed<Wide>(room.slopes, wide_queries(), n, task.scale, room.key_sums, state.n, task.width, true);
        return;
    }
#endif
    const Rows queries = wide_queries(), outs = wide_outs();
    state.pairs = meet<Wide>(task, gradients, head, begin, n, room, queries, outs) || task.dropout > 0;
    const bool pairs = state.pairs && !may_meet_zeros();
    add_transposed<Wide>(room.weights, outs, n, 1, room.value_sums, state.n, task.value_width, pairs);
    add_transposed<Wide>(room.slopes, queries, n, task.scale, room.key_sums, state.n, task.width, pairs);
}

void attention_add_queries(const Attention& task, const AttentionGradients& gradients, void* scratch) {
#if defined(FIRTH_TILES)
    if (task.bf16) return add_queries_in_tiles(task, gradients, tile_backward_room(task, scratch));
#endif
    const BackwardRoom room = backward_room(task, scratch);
    const BackwardRoom::State& state = *room.state;
    const std::int64_t stride = gradients.q_stride;
    float* const to = gradients.q + ((state.batch * task.n_heads + state.head) * task.n_queries + state.first) * stride;
    const auto vectors = static_cast<int>(padded(task.width) / kWidth);
    const auto wide_keys = [&] {
        return rows_of(task, task.k, state.batch, state.key_head, state.begin, state.n, task.width, true, room.keys);
    };
    const auto add = [&](auto arithmetic, const float* slopes, std::int64_t row, const Rows& keys,
                         int n) __attribute__((always_inline)) {
        for (int first = 0; first < state.n_queries; first += kRows) {
            const int some = state.n_queries - first < kRows ? state.n_queries - first : kRows;
            with_rows(some, [&](auto count) __attribute__((always_inline)) {
                weigh<decltype(arithmetic), decltype(count)::value>(slopes + first * row, row, 1, keys, n, kOnes,
                                                                    task.scale, to + first * stride, stride, vectors);
            });
        }
    };
    if (state.pairs) {
        const Rows keys = wide_keys();
        if (!all_finite(keys, state.n, task.width)) {
            weigh_pairs(state.n_queries, room.slopes, kAttentionBlock, 1, keys, state.n, nullptr, task.scale, to,
                        stride, vectors);
            return;
        }
    }
#if defined(__AVX512BF16__)
    if (state.halves && !state.wide) {
        add(Halves{}, room.slope_halves, kAttentionBlock / 2, Rows{room.key_pairs, padded(task.width)},
            (state.n + 1) / 2);
        return;
    }
#endif
    add(Wide{}, room.slopes, kAttentionBlock, wide_keys(), state.n);
}

void attention_end_keys(const Attention& task, const AttentionGradients& gradients, void* scratch) {
#if defined(FIRTH_TILES)
    if (task.bf16) {
        const TileBackwardRoom tile_room = tile_backward_room(task, scratch);
        const TileBackwardRoom::State& at = *tile_room.state;
        write_transposed(task, gradients.k, at.batch, at.key_head, at.begin, at.n, task.width, task.scale,
                         tile_room.key_sums, tile_room.rows);
        write_transposed(task, gradients.v, at.batch, at.key_head, at.begin, at.n, task.value_width, 1,
                         tile_room.value_sums, tile_room.rows);
        return;
    }
#endif
    const BackwardRoom room = backward_room(task, scratch);
    const BackwardRoom::State& state = *room.state;
    for (int j = 0; j < state.n; ++j) {
        write_row(task, gradients.k, state.batch, state.key_head, state.begin + j, task.width,
                  room.key_sums + j * padded(task.width));
        write_row(task, gradients.v, state.batch, state.key_head, state.begin + j, task.value_width,
                  room.value_sums + j * padded(task.value_width));
    }
}

void attention_end_query(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                         std::int64_t i, float* sums) {
#if defined(FIRTH_TILES)
    if (task.bf16) {  // the scale is still missing
        for (int d = 0; d < task.width; d += kWidth) store(sums + d, load(sums + d) * task.scale);
    }
#endif
    write_row(task, gradient, batch, head, i, task.width, sums);
}

void attention_weights(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t query, float* weights,
                       void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    const ForwardRoom room(arena, task, kAttentionQueries);
    for (std::int64_t j = 0; j < task.n_keys; ++j) weights[j] = 0;
    const float lse = task.lse[(batch * task.n_heads + head) * task.n_queries + query] * kLog2e;
    walk<Wide>(task, batch, head, query, query + 1, room, false,
               [&](auto, const Query* of, std::int64_t low, std::int64_t high, std::int64_t, Values&, std::int64_t)
                   __attribute__((always_inline)) {
                       const std::int64_t whole = low + (high - low + kWidth - 1) / kWidth * kWidth;
                       settle(task, of[0], low, whole, room.scores);
                       for (std::int64_t j = low; j < whole; j += kWidth) {
                           const Vec x = load(room.scores + (j - low));
                           store(room.scores + (j - low), select(x == -kInfinity, Vec{}, exp2_of(min(Vec{}, x - lse))));
                       }
                       for (std::int64_t j = low; j < high; ++j) weights[j] = room.scores[j - low];
                   });
}

void attention_entropies(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                         std::int64_t end, float* entropies, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    const ForwardRoom room(arena, task, kAttentionQueries);
    const std::int64_t row = (batch * task.n_heads + head) * task.n_queries;
    room.rows.clear(end - begin);
    walk<Wide>(task, batch, head, begin, end, room, false,
               [&](auto count, const Query* of, std::int64_t low, std::int64_t high, std::int64_t first, Values&,
                   std::int64_t) __attribute__((always_inline)) {
                   const std::int64_t whole = low + (high - low + kWidth - 1) / kWidth * kWidth;
                   for (int r = 0; r < decltype(count)::value; ++r) {
                       float* const s = room.scores + r * kChunk;
                       const float lse = task.lse[row + of[r].i] * kLog2e;
                       settle(task, of[r], low, whole, s);
                       Vec sum = load(room.rows.sums + (first + r) * kWidth);
                       for (std::int64_t j = 0; j < whole - low; j += kWidth) {
                           const Vec score = load(s + j);
                           // Bounded as the weights are: a tiny one times a huge logarithm is nothing.
                           const Vec x = max(splat(-126.0f), min(Vec{}, score - lse));
                           sum -= select(score == -kInfinity, Vec{}, exp2_of(x) * x);
                       }
                       store(room.rows.sums + (first + r) * kWidth, sum);
                   }
               });
    for (std::int64_t i = begin; i < end; ++i) {
        entropies[row + i] = lanes_sum(load(room.rows.sums + (i - begin) * kWidth)) * kLn2;
    }
}

const AttentionKernels attention_kernels{
    .scratch_bytes = attention_scratch_bytes,
    .rows = attention_rows,
    .forward = attention_forward,
    .few = attention_few,
    .merge = attention_merge,
    .packed_bytes = attention_packed_bytes,
    .deltas = attention_deltas,
    .begin_keys = attention_begin_keys,
    .meet = attention_meet,
    .add_queries = attention_add_queries,
    .end_keys = attention_end_keys,
    .end_query = attention_end_query,
    .weights = attention_weights,
    .entropies = attention_entropies,
};

}  // namespace firth::FIRTH_ISA
