// Scores with all terms and masks, in units of log 2; dropout; what a row has summed up over its keys.
#pragma once

#include "kernels/attention/blocks.hpp"
#include "runtime/random.hpp"

namespace firth::FIRTH_ISA {
namespace {

// A term's numbers for up to kWidth keys, from key j on.
FIRTH_INLINE Vec fetch(const float* row, std::int64_t stride, std::int64_t j, std::int64_t n) {
    if (stride == 1 && n >= kWidth) return load(row + j);
    Vec x{};
    for (int lane = 0; lane < kWidth && lane < n; ++lane) x[lane] = row[(j + lane) * stride];
    return x;
}
// -1 where a key may be seen.
FIRTH_INLINE VecInt fetch(const unsigned char* row, std::int64_t stride, std::int64_t j, std::int64_t n) {
    if (stride == 1 && n >= kWidth) {
#if defined(__aarch64__)  // GCC loads byte by byte
        std::uint32_t bytes;
        __builtin_memcpy(&bytes, row + j, sizeof bytes);
        return reinterpret_cast<VecInt>(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bytes))))) != 0;
#else
        typedef unsigned char Bytes __attribute__((vector_size(kWidth), aligned(1), may_alias));
        return __builtin_convertvector(*reinterpret_cast<const Bytes*>(row + j), VecInt) != 0;
#endif
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
#elif defined(__aarch64__)
    return vmaxvq_u32(reinterpret_cast<uint32x4_t>(mask)) != 0;
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

// Adds a term, in units of log 2. Minus infinity masks a key whatever its score is, and a masked key stays masked.
// Returns whether any key is masked. A sum is at least the lowest float, which some libraries write in masks: it does
// not mask a key from a query that sees no better one.
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

// Masks keys. Returns whether there were any.
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

// Adds all terms to scores of the keys [begin, end), which are q . k times scale / ln 2. Scores of keys that the query
// does not see become -infinity. Returns whether there are any.
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

// Sums of rows over the keys so far.
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

// A row's sums become its output and its log-sum-exp.
FIRTH_INLINE void finish(const Attention& task, const Query& query, float sum, float most, float* values) {
    const float share = sum == 0 ? 0.0f : 1.0f / sum;
    const int width = static_cast<int>(padded(task.value_width));
    for (int d = 0; d < width; d += kWidth) store(values + d, load(values + d) * share);
    write_row(task, task.out, query.batch, query.head, query.i, task.value_width, values);
    if (task.lse == nullptr) return;
    const std::int64_t row = (query.batch * task.n_heads + query.head) * task.n_queries + query.i;
    task.lse[row] = sum == 0 ? -kInfinity : most * kLn2 + __builtin_logf(sum);
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

FIRTH_INLINE bool has_terms(const Attention& task) {
    return task.added.data || task.bias.data || task.slopes || task.visible.data;
}

}  // namespace
}  // namespace firth::FIRTH_ISA
