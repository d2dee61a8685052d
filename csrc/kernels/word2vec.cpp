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
// Neighbours of one step at the most. A wider window takes several steps: with the gradients of hundreds of neighbours
// taken at one place, the centre's row overshoots, and training diverges at the usual learning rates.
constexpr int kHidden = 16;
// Tokens of a range handled at once, and steps between a prefetch and its use.
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

// One step to come: up to kHidden of a centre's neighbours, and the targets that they share.
struct Task {
    int centre;
    int from, to;     // the neighbours: kept tokens [from, to) but the centre
    int m;            // how many they are
    int n_targets;    // 0: there is no such step
    float** targets;  // (2 + K) the centre's own row, the negatives', and the newest neighbour's, to be asked for
};

// Where one thread keeps its things; laid out once over the scratch that the caller gives.
struct Workspace {
    Kept kept;
    Task tasks[kAhead + 1];  // a ring
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
    Workspace w;
    w.kept.words = arena.take<std::int32_t>(tokens);
    w.kept.first = arena.take<std::int32_t>(tokens);
    w.kept.last = arena.take<std::int32_t>(tokens);
    w.kept.positions = arena.take<std::int64_t>(tokens);
    for (Task& task : w.tasks) task.targets = arena.take<float*>(2 + negative);
    return w;
}

// Gives the steps of a stretch one after the other.
class Tasks {
  public:
    Tasks(const Sampler& sampler, const Kept& kept, std::uint64_t noise_key)
        : sampler_(sampler), kept_(kept), noise_key_(noise_key), centre_(kept.begin - 1) {}

    void next(Task& task) {
        task.m = 0;
        while (task.m == 0) {
            if (at_ == to_ && !next_centre()) {
                task.n_targets = 0;
                return;
            }
            task.centre = centre_;
            task.from = at_;
            at_ = at_ + kHidden < to_ ? at_ + kHidden : to_;
            const bool inside = task.from <= centre_ && centre_ < at_;
            if (inside && at_ < to_) ++at_;
            task.to = at_;
            task.m = task.to - task.from - inside;
            ++piece_;
        }
        draw(task);
    }

  private:
    bool next_centre() {
        if (++centre_ >= kept_.end) {
            centre_ = kept_.end;
            return false;
        }
        const std::uint64_t bits = sampler_.bits(kept_.positions[centre_]);
        const int reach = 1 + static_cast<int>(random_below(bits, static_cast<std::uint32_t>(sampler_.task.window)));
        at_ = centre_ - reach > kept_.first[centre_] ? centre_ - reach : kept_.first[centre_];
        to_ = centre_ + reach + 1 < kept_.last[centre_] ? centre_ + reach + 1 : kept_.last[centre_];
        piece_ = 0;
        return true;
    }

    // K negatives, less those that hit the centre itself, as word2vec has it.
    void draw(Task& task) const {
        const SkipGram& all = sampler_.task;
        const std::int32_t centre = kept_.words[task.centre];
        const auto position = static_cast<std::uint64_t>(kept_.positions[task.centre]) +
                              static_cast<std::uint64_t>(piece_ - 1) * static_cast<std::uint64_t>(all.n_tokens);
        const std::uint64_t first_draw = position * static_cast<std::uint64_t>(all.negative);
        const auto row = [&](float* matrix, std::int32_t word) {
            return matrix + static_cast<std::int64_t>(word) * all.stride;
        };
        task.targets[0] = row(all.context, centre);
        int n = 1;
        for (int k = 0; k < all.negative; ++k) {
            const std::uint64_t bits = random_at(noise_key_, first_draw + static_cast<std::uint64_t>(k));
            const auto cell = static_cast<std::int32_t>(random_below(bits, static_cast<std::uint32_t>(all.n_words)));
            const AliasCell drawn = all.noise[cell];
            // Which of the two it is cannot be foretold: a mask, not a branch.
            const std::int32_t own = -static_cast<std::int32_t>(static_cast<std::uint32_t>(bits) <= drawn.threshold);
            const std::int32_t word = (cell & own) | (static_cast<std::int32_t>(drawn.alias) & ~own);
            task.targets[n] = row(all.context, word);
            n += word != centre;
        }
        task.n_targets = n;
        // The widest reach brings this neighbour in first, or the end of the piece does.
        const int newest = task.centre + all.window < kept_.last[task.centre] ? task.centre + all.window : task.to - 1;
        task.targets[n] = row(all.vectors, kept_.words[newest]);
    }

    const Sampler& sampler_;
    const Kept& kept_;
    const std::uint64_t noise_key_;
    int centre_;
    int at_ = 0, to_ = 0;  // what is left of the centre's window
    int piece_ = 0;        // pieces of it given so far
};

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

    alignas(64) float dots[kTargets * kHidden + kWidth];
    // +1 for the first target's pairs, -1 for all others': a step whose first target is the centre starts m4 before -1.
    alignas(64) float signs[(1 + kTargets) * kHidden + kWidth];
    for (int i = 0; i < (1 + kTargets) * kHidden + kWidth; ++i) signs[i] = i < kHidden ? 1.0f : -1.0f;
    StepScratch step_scratch{dots, {splat(1), splat_int(0)}, 0};

    const int floats = round_up(task.vector_size, kWidth);
    const auto epoch = static_cast<std::uint64_t>(task.epoch);
    const Sampler sampler{task, random_key(task.seed, 2 * epoch)};
    const std::uint64_t noise_key = random_key(task.seed, 2 * epoch + 1);
    const double all_tokens = static_cast<double>(task.epochs) * static_cast<double>(task.n_tokens);
    const double tokens_before = static_cast<double>(task.epoch) * static_cast<double>(task.n_tokens);

    for (std::int64_t block = begin; block < end; block += kBlock) {
        sample_stretch(sampler, block, block + kBlock < end ? block + kBlock : end, w.kept);
        tally->centres += kept.end - kept.begin;
        Tasks tasks(sampler, kept, noise_key);
        for (int slot = 0; slot < kAhead; ++slot) tasks.next(w.tasks[slot]);
        for (int slot = 0; w.tasks[slot].n_targets > 0; slot = slot == kAhead ? 0 : slot + 1) {
            Task& ahead = w.tasks[slot == 0 ? kAhead : slot - 1];
            tasks.next(ahead);
            Rows upcoming{ahead.targets, ahead.n_targets > 0 ? ahead.n_targets + 1 : 0};

            const Task& now = w.tasks[slot];
            float* hidden[kHidden + 1];  // the last one is written and not used
            int m = 0;
            for (int c = now.from; c < now.to; ++c) {
                hidden[m] = task.vectors + static_cast<std::int64_t>(kept.words[c]) * task.stride;
                m += c != now.centre;
            }
            const std::int64_t position = kept.positions[now.centre];
            const double progress = (tokens_before + static_cast<double>(position)) / all_tokens;
            const auto rate =
                static_cast<float>(task.learning_rate - (task.learning_rate - task.min_learning_rate) * progress);
            const float* sign = signs + kHidden - round_up(m, 4);
            for (int first = 0; first < now.n_targets; first += kTargets) {
                const int n = now.n_targets - first < kTargets ? now.n_targets - first : kTargets;
                if (!step(hidden, m, now.targets + first, n, sign, rate, floats, upcoming, step_scratch)) {
                    tally->diverged_at = position;
                    return;
                }
                sign = signs + kHidden;
                upcoming.n = 0;
            }
            tally->examples += m;
        }
        tally->loss += take(step_scratch.loss);
    }
    tally->loss -= 0.693147180559945309 * static_cast<double>(step_scratch.padding);
}

}  // namespace firth::FIRTH_ISA
