// One update rule, `logistic_step`, for m hidden rows against n target rows: every pair's gradient of the logistic
// loss, all taken at the rows as they stand. A trainer only chooses the rows.
//
// Skip-gram here takes for hidden rows the whole window of a centre, and for targets the centre and one draw of K
// negatives that the window shares (Ji et al. 2016). The work is then small dense blocks instead of single dot
// products.

#include "kernels/word2vec.hpp"

#include "kernels/simd.hpp"
#include "runtime/random.hpp"

namespace firth::FIRTH_ISA {
namespace {

// Targets of one step at the most: in `apply` they take two registers each, which leaves four of the sixteen.
constexpr int kTargets = 6;
// Register block of dot products: 4 hidden rows by this many targets.
constexpr int kTargetsAtOnce = kRegisters == 32 ? 6 : 3;
// Tokens of a range handled at once, and centres between a prefetch and its use.
constexpr int kBlock = 4096;
constexpr int kAhead = 2;
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

double take(LossProduct& loss) {
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

template <int N>
FIRTH_INLINE void dot_rows(float* dots, int m4, float* const* hidden, int m, float* const* targets, int floats) {
    int i = 0;
    for (; i + 4 <= m; i += 4) dot_block<4, N>(dots + i, m4, hidden + i, targets, floats);
    switch (m - i) {
        case 3:
            return dot_block<3, N>(dots + i, m4, hidden + i, targets, floats);
        case 2:
            return dot_block<2, N>(dots + i, m4, hidden + i, targets, floats);
        case 1:
            return dot_block<1, N>(dots + i, m4, hidden + i, targets, floats);
    }
}

struct Rows {
    float* const* rows;
    int n;
};

// Moves both sides in one pass over D, while they are in registers:
//   hidden[i] += sum_j g[j * m4 + i] targets[j]      target[j] += sum_i g[j * m4 + i] hidden[i]
// with the targets as they were before the step. Sums for a target are added to what memory holds at the end, so that
// a word drawn twice, or moved by another thread meanwhile, keeps both moves. Rows that a later step will write are
// asked for on the way, a line of each at a time: all at once they would fill the queue of outstanding misses.
template <int N>
FIRTH_INLINE void apply(const float* g, int m4, float* const* hidden, int m, float* const* targets, int floats,
                        const Rows& upcoming) {
    for (int d = 0; d < floats; d += kWidth) {
        if (d % kLine == 0) {
            for (int r = 0; r < upcoming.n; ++r) __builtin_prefetch(upcoming.rows[r] + d, 1, 3);
        }
        Vec target[N], move[N];
#pragma GCC unroll 6
        for (int j = 0; j < N; ++j) {
            target[j] = load(targets[j] + d);
            move[j] = Vec{};
        }
        for (int i = 0; i < m; ++i) {
            const Vec h = load(hidden[i] + d);
            Vec moved = h;
#pragma GCC unroll 6
            for (int j = 0; j < N; ++j) {
                const Vec gradient = splat(g[j * m4 + i]);
                move[j] += gradient * h;
                moved += gradient * target[j];
            }
            store(hidden[i] + d, moved);
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

// The update rule. signs: (N, m4), +1 where a pair is to be predicted and -1 where not. With z = sign * (h . t) the
// loss of a pair is -log sigma(z), and its step is learning_rate * sign * sigma(-z) along the other row. Returns false,
// and has written nothing, if a dot product is not finite.
template <int N>
FIRTH_INLINE bool logistic_step(float* const* hidden, int m, float* const* targets, const float* signs,
                                float learning_rate, int floats, const Rows& upcoming, StepScratch& scratch) {
    const int m4 = round_up(m, 4);
    const int pairs = round_up(N * m4, kWidth);
    float* const dots = scratch.dots;
    store(dots + pairs - kWidth, Vec{});
    if constexpr (N > kTargetsAtOnce) {
        dot_rows<kTargetsAtOnce>(dots, m4, hidden, m, targets, floats);
        dot_rows<N - kTargetsAtOnce>(dots + kTargetsAtOnce * m4, m4, hidden, m, targets + kTargetsAtOnce, floats);
    } else {
        dot_rows<N>(dots, m4, hidden, m, targets, floats);
    }

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
    scratch.padding += pairs - N * m;
    apply<N>(dots, m4, hidden, m, targets, floats, upcoming);
    return true;
}

FIRTH_INLINE bool step(float* const* hidden, int m, float* const* targets, int n, const float* signs,
                       float learning_rate, int floats, const Rows& upcoming, StepScratch& scratch) {
    switch (n) {
        case 1:
            return logistic_step<1>(hidden, m, targets, signs, learning_rate, floats, upcoming, scratch);
        case 2:
            return logistic_step<2>(hidden, m, targets, signs, learning_rate, floats, upcoming, scratch);
        case 3:
            return logistic_step<3>(hidden, m, targets, signs, learning_rate, floats, upcoming, scratch);
        case 4:
            return logistic_step<4>(hidden, m, targets, signs, learning_rate, floats, upcoming, scratch);
        case 5:
            return logistic_step<5>(hidden, m, targets, signs, learning_rate, floats, upcoming, scratch);
        default:
            return logistic_step<6>(hidden, m, targets, signs, learning_rate, floats, upcoming, scratch);
    }
}

// A stretch of tokens after subsampling, with as many neighbours on either side as a window can reach.
struct Kept {
    std::int32_t* words;
    std::int32_t* first;  // where in this list the token's document begins, and ends
    std::int32_t* last;
    std::int64_t* positions;  // in the corpus
    int begin, end;           // the centres
};

struct Sampler {
    const SkipGram& task;
    std::uint64_t key;

    // 64 bits for each token: the low half decides whether it is kept, the high half its reach.
    std::uint64_t bits(std::int64_t position) const { return random_at(key, static_cast<std::uint64_t>(position)); }
    bool keeps(std::int64_t position) const {
        return static_cast<std::uint32_t>(bits(position)) <= task.keep[task.ids[position]];
    }
};

// The last document that begins at or before `position`; empty ones before it do not matter.
std::int64_t document_at(const SkipGram& task, std::int64_t position) {
    std::int64_t low = 0, high = task.n_documents;
    while (high - low > 1) {
        const std::int64_t middle = low + (high - low) / 2;
        (task.offsets[middle] <= position ? low : high) = middle;
    }
    return low;
}

// Fills `kept` with the tokens of [begin, end), begin < end, that subsampling keeps, and their neighbours.
void sample_stretch(const Sampler& sampler, std::int64_t begin, std::int64_t end, Kept& kept) {
    const SkipGram& task = sampler.task;
    std::int64_t document = document_at(task, begin);
    int n = 0;
    // Neighbours on the left, found backwards, then turned round.
    for (std::int64_t p = begin - 1; p >= task.offsets[document] && n < task.window; --p) {
        if (sampler.keeps(p)) kept.positions[n++] = p;
    }
    for (int i = 0, j = n - 1; i < j; ++i, --j) {
        const std::int64_t p = kept.positions[i];
        kept.positions[i] = kept.positions[j];
        kept.positions[j] = p;
    }
    kept.begin = n;
    int first = 0;
    std::int64_t p = begin;
    while (true) {
        const std::int64_t document_end = task.offsets[document + 1];
        const std::int64_t stop = document_end < end ? document_end : end;
        for (; p < stop; ++p) {
            kept.positions[n] = p;
            n += sampler.keeps(p);
        }
        const bool done = p == end;
        if (done) {
            kept.end = n;
            for (; p < document_end && n < kept.end + task.window; ++p) {
                if (sampler.keeps(p)) kept.positions[n++] = p;
            }
        }
        for (int i = first; i < n; ++i) {
            kept.first[i] = first;
            kept.last[i] = n;
        }
        if (done) break;
        first = n;
        ++document;
    }
    for (int i = 0; i < n; ++i) kept.words[i] = task.ids[kept.positions[i]];
}

// Where one thread keeps its things; laid out once over the scratch that the caller gives.
struct Workspace {
    Kept kept;
    float** hidden;   // (2 window + 1), the last written and not used
    float** targets;  // (kAhead + 1, 2 + K) a ring: the centre's own row, its negatives, and a row to ask for
    int* n_targets;   // (kAhead + 1)
    float* signs;     // +1 (m4_max) times, then -1: a step whose first target is positive starts m4 before the turn
    StepScratch step;
};

// Hands out pieces of the scratch, or, without scratch, only adds them up.
struct Arena {
    char* base;
    std::int64_t used = 0;
    template <class T>
    T* take(std::int64_t n) {
        T* piece = base ? reinterpret_cast<T*>(base + used) : nullptr;
        used += (n * static_cast<std::int64_t>(sizeof(T)) + 63) / 64 * 64;
        return piece;
    }
};

Workspace lay_out(Arena& arena, int window, int negative) {
    const int tokens = kBlock + 2 * window + 1;  // one more: the filter writes before it decides
    const int m4_max = round_up(2 * window, 4);
    Workspace w;
    w.kept.words = arena.take<std::int32_t>(tokens);
    w.kept.first = arena.take<std::int32_t>(tokens);
    w.kept.last = arena.take<std::int32_t>(tokens);
    w.kept.positions = arena.take<std::int64_t>(tokens);
    w.hidden = arena.take<float*>(2 * window + 1);
    w.targets = arena.take<float*>((kAhead + 1) * (2 + negative));
    w.n_targets = arena.take<int>(kAhead + 1);
    w.signs = arena.take<float>(m4_max + kTargets * m4_max + kWidth);
    w.step.dots = arena.take<float>(kTargets * m4_max + kWidth);
    w.step.loss = {splat(1), splat_int(0)};
    w.step.padding = 0;
    return w;
}

}  // namespace

std::int64_t skipgram_scratch_bytes(int window, int negative) {
    Arena arena{nullptr};
    lay_out(arena, window, negative);
    return arena.used;
}

void skipgram_range(const SkipGram& task, std::int64_t begin, std::int64_t end, SkipGramTally* tally, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    Workspace w = lay_out(arena, task.window, task.negative);
    const Kept& kept = w.kept;
    const int m4_max = round_up(2 * task.window, 4);
    for (int i = 0; i < m4_max; ++i) w.signs[i] = 1.0f;
    for (int i = 0; i < kTargets * m4_max + kWidth; ++i) w.signs[m4_max + i] = -1.0f;

    const int floats = round_up(task.vector_size, kWidth);
    const auto epoch = static_cast<std::uint64_t>(task.epoch);
    const Sampler sampler{task, random_key(task.seed, 2 * epoch)};
    const std::uint64_t noise_key = random_key(task.seed, 2 * epoch + 1);
    const double all_tokens = static_cast<double>(task.epochs) * static_cast<double>(task.n_tokens);
    const auto row = [&](float* matrix, std::int32_t word) {
        return matrix + static_cast<std::int64_t>(word) * task.stride;
    };

    // Draws the targets of centre i: K negatives, less those that hit the centre itself, as word2vec has it.
    const auto prepare = [&](int i) {
        if (i >= kept.end) return;
        const std::int32_t centre = kept.words[i];
        const int slot = i % (kAhead + 1);
        float** const targets = w.targets + slot * (2 + task.negative);
        targets[0] = row(task.context, centre);
        const auto first_draw =
            static_cast<std::uint64_t>(kept.positions[i]) * static_cast<std::uint64_t>(task.negative);
        int n = 1;
        for (int k = 0; k < task.negative; ++k) {
            const std::uint64_t bits = random_at(noise_key, first_draw + static_cast<std::uint64_t>(k));
            const auto cell = static_cast<std::int32_t>(random_below(bits, static_cast<std::uint32_t>(task.n_words)));
            const AliasCell drawn = task.noise[cell];
            // Which of the two it is cannot be foretold: a mask, not a branch.
            const std::int32_t own = -static_cast<std::int32_t>(static_cast<std::uint32_t>(bits) <= drawn.threshold);
            const std::int32_t word = (cell & own) | (static_cast<std::int32_t>(drawn.alias) & ~own);
            targets[n] = row(task.context, word);
            n += word != centre;
        }
        w.n_targets[slot] = n;
        const int newest = i + task.window < kept.last[i] ? i + task.window : i;
        targets[n] = row(task.vectors, kept.words[newest]);
    };
    // The rows of centre i, and the one that enters its window last.
    const auto rows_of = [&](int i) {
        const int slot = i % (kAhead + 1);
        return i < kept.end ? Rows{w.targets + slot * (2 + task.negative), w.n_targets[slot] + 1} : Rows{nullptr, 0};
    };

    for (std::int64_t block = begin; block < end; block += kBlock) {
        sample_stretch(sampler, block, block + kBlock < end ? block + kBlock : end, w.kept);
        for (int i = kept.begin; i < kept.begin + kAhead; ++i) prepare(i);
        for (int i = kept.begin; i < kept.end; ++i) {
            prepare(i + kAhead);
            const std::int64_t position = kept.positions[i];
            const int reach =
                1 + static_cast<int>(random_below(sampler.bits(position), static_cast<std::uint32_t>(task.window)));
            const int from = i - reach > kept.first[i] ? i - reach : kept.first[i];
            const int to = i + reach + 1 < kept.last[i] ? i + reach + 1 : kept.last[i];
            int m = 0;
            for (int c = from; c < to; ++c) {
                w.hidden[m] = row(task.vectors, kept.words[c]);
                m += c != i;
            }
            ++tally->centres;
            Rows upcoming = rows_of(i + kAhead);
            if (m == 0) continue;

            const double progress =
                (static_cast<double>(task.epoch) * static_cast<double>(task.n_tokens) + static_cast<double>(position)) /
                all_tokens;
            const auto rate =
                static_cast<float>(task.learning_rate - (task.learning_rate - task.min_learning_rate) * progress);
            const int slot = i % (kAhead + 1);
            float* const* const targets = w.targets + slot * (2 + task.negative);
            const int n = w.n_targets[slot];
            const float* signs = w.signs + m4_max - round_up(m, 4);
            for (int first = 0; first < n; first += kTargets) {
                const int some = n - first < kTargets ? n - first : kTargets;
                if (!step(w.hidden, m, targets + first, some, signs, rate, floats, upcoming, w.step)) {
                    tally->diverged_at = position;
                    return;
                }
                signs = w.signs + m4_max;
                upcoming.n = 0;
            }
            tally->examples += m;
        }
        tally->loss += take(w.step.loss);
    }
    tally->loss -= 0.693147180559945309 * static_cast<double>(w.step.padding);
}

}  // namespace firth::FIRTH_ISA
