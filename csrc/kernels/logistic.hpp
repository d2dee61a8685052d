// The update rule of everything that is trained with the logistic loss, and what its users share: `logistic_step`, for
// m hidden rows against n target rows; how a bag of rows makes one hidden row; how negatives are drawn.
//
// Kernels include this once per instruction set, as they do simd.hpp.
#pragma once

#include "kernels/arena.hpp"
#include "kernels/count.hpp"
#include "runtime/random.hpp"
#include "tasks/logistic.hpp"

namespace firth::FIRTH_ISA {

static_assert(kTargets == 6);  // in `apply` they take two registers each, which leaves four of the sixteen
// Register block of dot products: 4 hidden rows by this many targets.
constexpr int kTargetsAtOnce = kRegisters == 32 ? 6 : 3;
constexpr int kLine = 16;  // floats in a cache line

// Loss of a step's pairs, kept without a logarithm: per lane, the product of all factors 1 + e^-z as a mantissa in
// [1, 2) and a sum of exponents. Exact to a rounding of the mantissa, 6e-8 nats, for each factor.
struct LossProduct {
    Vec mantissa;
    VecInt exponent;
};

FIRTH_INLINE void multiply(LossProduct& loss, Vec factor) {
    const Vec product = loss.mantissa * factor;  // below 2 * (1 + e^87), which a float still holds
    const VecInt bits = reinterpret_cast<VecInt>(product);
    loss.exponent += (bits >> 23) - 127;
    loss.mantissa = reinterpret_cast<Vec>((bits & 0x007FFFFF) | 0x3F800000);
}

FIRTH_INLINE double take(LossProduct& loss) {
    double sum = 0;
    for (int lane = 0; lane < kWidth; ++lane) {
        sum += __builtin_log(static_cast<double>(loss.mantissa[lane])) + 0.693147180559945309 * loss.exponent[lane];
    }
    loss = {splat(1), splat_int(0)};
    return sum;
}

// dots[j * m4 + i] = hidden[i] . targets[j] for M hidden rows (1 to 4) and N targets; hidden rows up to the fourth that
// are not there give 0.
template <int M, int N>
FIRTH_INLINE void dot_block(float* dots, int m4, float* const* hidden, float* const* targets, int floats) {
    Vec sum[N][4] = {};
    for (int d = 0; d < floats; d += kWidth) {
        Vec h[M];
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) h[i] = load(hidden[i] + d);
#pragma GCC unroll 6
        for (int j = 0; j < N; ++j) {
            const Vec t = load(targets[j] + d);
#pragma GCC unroll 4
            for (int i = 0; i < M; ++i) sum[j][i] += h[i] * t;
        }
    }
#pragma GCC unroll 6
    for (int j = 0; j < N; ++j) store4(dots + j * m4, sum4(sum[j][0], sum[j][1], sum[j][2], sum[j][3]));
}

// The same for a single hidden row: dots[j] = hidden . targets[j], with nothing between them; up to the next multiple
// of four it writes zeros.
template <int N>
FIRTH_INLINE void dot_row(float* dots, const float* hidden, float* const* targets, int floats) {
    Vec sum[(N + 3) / 4 * 4] = {};
    for (int d = 0; d < floats; d += kWidth) {
        const Vec h = load(hidden + d);
#pragma GCC unroll 6
        for (int j = 0; j < N; ++j) sum[j] += h * load(targets[j] + d);
    }
#pragma GCC unroll 2
    for (int j = 0; j < N; j += 4) store4(dots + j, sum4(sum[j], sum[j + 1], sum[j + 2], sum[j + 3]));
}

template <int N>
FIRTH_INLINE void dot_rows(float* dots, int m4, float* const* hidden, int m, float* const* targets, int floats) {
    int i = 0;
    for (; i + 4 <= m; i += 4) dot_block<4, N>(dots + i, m4, hidden + i, targets, floats);
    if (i == m) return;
    with_count<3>(m - i, [&](auto count)
                             FIRTH_INLINE_LAMBDA { dot_block<count.n, N>(dots + i, m4, hidden + i, targets, floats); });
}

struct Rows {
    float* const* rows;
    std::int64_t n;
};

// Moves both sides in one pass over D, while they are in registers:
//   hidden[i] += sum_j g[j * m4 + i] targets[j]      target[j] += sum_i g[j * m4 + i] hidden[i]
// with the targets as they were before the step. Each sum is computed separately and added to its row once: small moves
// keep their digits, and a word drawn twice, or moved by another thread meanwhile, keeps both moves. Rows that a later
// step will write are prefetched on the way, one line of each at a time: all at once they would fill the queue of
// outstanding misses.
//
// With kBag hidden rows are those of bags, and stay as they are: what moves is moves[i], for the rows of bag i.
template <int N, bool kBag>
FIRTH_INLINE void apply(const float* g, int m4, float* const* hidden, int m, float* const* targets, int floats,
                        const Rows& upcoming, float* const* moves) {
    for (int d = 0; d < floats; d += kWidth) {
        if (d % kLine == 0) {
            for (std::int64_t r = 0; r < upcoming.n; ++r) __builtin_prefetch(upcoming.rows[r] + d, 1, 3);
        }
        Vec target[N], move[N];
#pragma GCC unroll 6
        for (int j = 0; j < N; ++j) {
            target[j] = load(targets[j] + d);
            move[j] = Vec{};
        }
        for (int i = 0; i < m; ++i) {
            const Vec h = load(hidden[i] + d);
            float* const to = (kBag ? moves : hidden)[i] + d;
            Vec moved{};
#pragma GCC unroll 6
            for (int j = 0; j < N; ++j) {
                const Vec gradient = splat(g[j * m4 + i]);
                move[j] += gradient * h;
                moved += gradient * target[j];
            }
            store(to, moved + (kBag ? load(to) : h));
        }
#pragma GCC unroll 6
        for (int j = 0; j < N; ++j) store(targets[j] + d, load(targets[j] + d) + move[j]);
    }
}

// Room for one step's pairs, and what its loss gathers.
struct StepScratch {
    float* dots;  // (kTargets, m4) rounded up to whole vectors
    LossProduct loss;
    std::int64_t padding;  // lanes without a pair, each of which put a factor of exactly 2 into the loss
};

FIRTH_INLINE constexpr int round_up(int n, int step) { return (n + step - 1) / step * step; }

// From one target's pairs to the next.
FIRTH_INLINE int pitch(int m) { return m == 1 ? 1 : round_up(m, 4); }

// dots[j * pitch(m) + i] = hidden[i] . targets[j]; of a last group of fewer than four hidden rows the others give 0.
template <int N>
FIRTH_INLINE void dot_pairs(float* dots, float* const* hidden, int m, float* const* targets, int floats) {
    const int m4 = pitch(m);
    if (m == 1) {
        dot_row<N>(dots, hidden[0], targets, floats);
    } else if constexpr (N > kTargetsAtOnce) {
        dot_rows<kTargetsAtOnce>(dots, m4, hidden, m, targets, floats);
        dot_rows<N - kTargetsAtOnce>(dots + kTargetsAtOnce * m4, m4, hidden, m, targets + kTargetsAtOnce, floats);
    } else {
        dot_rows<N>(dots, m4, hidden, m, targets, floats);
    }
}

// Turns the dot products of pairs into what each pair moves its rows by, along the other row: see logistic_step.
// `pairs` is a multiple of kWidth. False, with nothing changed, if one is not finite.
FIRTH_INLINE bool gradients(float* dots, const float* signs, float learning_rate, int pairs, StepScratch& scratch) {
    Vec finite{};
    for (int p = 0; p < pairs; p += kWidth) finite += load(dots + p) * 0.0f;
    if (any_nan(finite)) return false;
    for (int p = 0; p < pairs; p += kWidth) {
        const Vec sign = load(signs + p);
        // Beyond +-87 e^-z leaves the floats, and sigma is 0 or 1 to the last bit long before.
        const Vec e = exp_bounded(clamp(-(load(dots + p) * sign), -87.0f, 87.0f));
        const Vec factor = e + 1.0f;
        multiply(scratch.loss, factor);
        store(dots + p, sign * learning_rate * e / factor);
    }
    return true;
}

// The update rule. signs: (N, pitch(m)), +1 where a pair is to be predicted and -1 where not. With z = sign * (h . t)
// the loss of a pair is -log sigma(z), and its step is learning_rate * sign * sigma(-z) along the other row. Where
// `moves` is given the hidden rows are bags' (see apply). Returns false, and has written nothing, if a dot product
// is not finite.
template <int N>
FIRTH_INLINE bool logistic_step(float* const* hidden, int m, float* const* targets, const float* signs,
                                float learning_rate, int floats, const Rows& upcoming, StepScratch& scratch,
                                float* const* moves) {
    const int m4 = pitch(m);
    const int pairs = round_up(N * m4, kWidth);
    float* const dots = scratch.dots;
    store(dots + pairs - kWidth, Vec{});
    dot_pairs<N>(dots, hidden, m, targets, floats);
    if (!gradients(dots, signs, learning_rate, pairs, scratch)) return false;
    scratch.padding += pairs - N * m;
    if (moves != nullptr) {
        apply<N, true>(dots, m4, hidden, m, targets, floats, upcoming, moves);
    } else {
        apply<N, false>(dots, m4, hidden, m, targets, floats, upcoming, nullptr);
    }
    return true;
}

FIRTH_INLINE bool step(float* const* hidden, int m, float* const* targets, int n, const float* signs,
                       float learning_rate, int floats, const Rows& upcoming, StepScratch& scratch,
                       float* const* moves = nullptr) {
    return with_count<kTargets>(n, [&](auto count) FIRTH_INLINE_LAMBDA {
        return logistic_step<count.n>(hidden, m, targets, signs, learning_rate, floats, upcoming, scratch, moves);
    });
}

// The vector of a bag of rows: their sum times `scale`, padded as rows are.
FIRTH_INLINE void gather(float* const* rows, std::int64_t n, float scale, int floats, float* hidden) {
    constexpr int kAtOnce = 4 * kWidth;
    for (int d = 0; d < floats; d += kAtOnce) {
        Vec sum[4] = {};
        const int vectors = floats - d < kAtOnce ? (floats - d) / kWidth : 4;
        if (vectors == 4) {
            for (std::int64_t r = 0; r < n; ++r) {
#pragma GCC unroll 4
                for (int v = 0; v < 4; ++v) sum[v] += load(rows[r] + d + v * kWidth);
            }
        } else {
            for (std::int64_t r = 0; r < n; ++r) {
                for (int v = 0; v < vectors; ++v) sum[v] += load(rows[r] + d + v * kWidth);
            }
        }
        for (int v = 0; v < vectors; ++v) store(hidden + d + v * kWidth, sum[v] * scale);
    }
}

// Moves every row of a bag by `moves` times `scale`. Moves are summed separately, from zero: the difference between
// a vector before and after its moves would have lost their last digits.
FIRTH_INLINE void scatter(float* const* rows, std::int64_t n, float scale, int floats, const float* moves) {
    for (std::int64_t r = 0; r < n; ++r) {
        float* const row = rows[r];
        for (int d = 0; d < floats; d += kWidth) store(row + d, load(row + d) + load(moves + d) * scale);
    }
}

FIRTH_INLINE void clear(float* row, int floats) {
    for (int d = 0; d < floats; d += kWidth) store(row + d, Vec{});
}

// Number `number` of the draws from a distribution over n words or labels.
FIRTH_INLINE std::int32_t draw_noise(const AliasCell* noise, std::int32_t n, std::uint64_t key, std::uint64_t number) {
    const std::uint64_t bits = random_at(key, number);
    const auto cell = static_cast<std::int32_t>(random_below(bits, static_cast<std::uint32_t>(n)));
    const AliasCell drawn = noise[cell];
    // The choice is unpredictable: hence a mask, not a branch.
    const std::int32_t own = -static_cast<std::int32_t>(static_cast<std::uint32_t>(bits) <= drawn.threshold);
    return (cell & own) | (static_cast<std::int32_t>(drawn.alias) & ~own);
}

// Negative sampling: a row of its own, and `negative` random ones. drawn(number) is the row of draw `number` and
// its word or label; no other draw of the epoch has these numbers. Draws of `own` are dropped, as in word2vec. Returns
// how many targets there are, of which the first alone is positive.
struct Drawn {
    std::int32_t which;
    float* row;
};
template <class Draw>
FIRTH_INLINE int negative_targets(std::int32_t own, float* row, int negative, std::uint64_t draw, Draw&& drawn,
                                  float** targets) {
    const std::uint64_t first = draw * static_cast<std::uint64_t>(negative);
    targets[0] = row;
    int n = 1;
    for (int k = 0; k < negative; ++k) {
        const Drawn other = drawn(first + static_cast<std::uint64_t>(k));
        targets[n] = other.row;
        n += other.which != own;
    }
    return n;
}

// Hierarchical softmax (Morin & Bengio 2005): the inner nodes on the path to `own`, with the turn taken at each. Task
// is a Word2Vec or a Classifier.
template <class Task, class RowOf>
FIRTH_INLINE int path_targets(const Task& task, std::int32_t own, RowOf&& row_of, float** targets, float* signs) {
    const std::int64_t begin = task.path_begins[own];
    const auto n = static_cast<int>(task.path_begins[own + 1] - begin);
    for (int i = 0; i < n; ++i) {
        targets[i] = row_of(task.path_nodes[begin + i]);
        signs[i] = static_cast<float>(task.path_turns[begin + i]);
    }
    return n;
}

}  // namespace firth::FIRTH_ISA
