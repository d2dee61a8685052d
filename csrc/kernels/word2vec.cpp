// The update rule is that of logistic.hpp; a trainer only chooses the rows.
//
// Rows: plain skip-gram takes for hidden rows the whole window of a center, which shares its targets (Ji et al. 2016);
// the work is then small dense blocks instead of single dot products. Everything else has one hidden vector made of a
// bag of rows: CBOW of its window's, a word of its character n-grams. Every row of the bag is moved by the whole
// gradient, so the bag's mean moves by exactly that: it is gathered once and scattered once, whatever it predicts in
// between.
//
// Objective: a word is distinguished from random ones, or found along its path in a Huffman tree. Either way it is a
// list of target rows with a sign for each.

#include "kernels/word2vec.hpp"

#include "kernels/logistic.hpp"

namespace firth::FIRTH_ISA {
namespace {

// Tokens of a range handled at once, and steps between a prefetch and its use.
constexpr int kBlock = kMostKept;
constexpr int kAhead = 2;
constexpr std::int64_t kRowsAhead = 8;  // rows between asking for one and copying or merging it

struct Sampler {
    const Word2Vec& task;
    std::uint64_t key;

    // 64 bits for each token: the low half decides whether it is kept, the high half its reach.
    std::uint64_t bits(std::int64_t position) const { return random_at(key, static_cast<std::uint64_t>(position)); }
    bool keeps(std::int64_t position) const {
        return static_cast<std::uint32_t>(bits(position)) <= task.keep[task.ids[position]];
    }
};

// The last document that begins at or before `position`; empty ones before it do not matter.
std::int64_t document_at(const Word2Vec& task, std::int64_t position) {
    std::int64_t low = 0, high = task.n_documents;
    while (high - low > 1) {
        const std::int64_t middle = low + (high - low) / 2;
        (task.offsets[middle] <= position ? low : high) = middle;
    }
    return low;
}

// Fills `kept` with the tokens of [begin, end), begin < end, that subsampling keeps, and their neighbors.
void sample_stretch(const Sampler& sampler, std::int64_t begin, std::int64_t end, KeptTokens& kept) {
    const Word2Vec& task = sampler.task;
    std::int64_t document = document_at(task, begin);
    int n = 0;
    // Neighbors on the left, found backwards, then turned round.
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
    kept.n = n;
}

// Where rows lie: in the matrices, which all threads share...
struct SharedRows {
    static constexpr bool kOwn = false;
    const Word2Vec& task;
    float* in(std::int64_t row) const { return task.vectors + row * task.stride; }
    float* out(std::int64_t row) const { return task.context + row * task.stride; }
    // The same for the word of kept token `at`.
    float* kept_in(int, std::int32_t word) const { return in(word); }
    float* kept_out(int, std::int32_t word) const { return out(word); }
};

// ...or partly in copies that a block of tokens has to itself.
struct BlockAccess {
    static constexpr bool kOwn = true;
    const Word2Vec& task;
    const Word2VecBlock& block;
    float* in(std::int64_t row) const { return find(block.in, task.vectors, row); }
    float* out(std::int64_t row) const { return find(block.out, task.context, row); }
    float* kept_in(int at, std::int32_t) const { return block.kept_in[at]; }
    float* kept_out(int at, std::int32_t) const { return block.kept_out[at]; }

    float* find(const BlockRows& rows, float* matrix, std::int64_t row) const {
        const std::uint32_t blocks = rows.marks[row] & 0xFFFF;
        if ((blocks & (blocks - 1)) == 0) return matrix + row * task.stride;
        return rows.copies + static_cast<std::int64_t>(rows.places[rows.numbers[row]]) * task.stride;
    }
};

// Negative sampling: the word itself, and K random ones. A block with rows of its own draws them from a pool drawn for
// it, so that it touches, and copies, few.
template <class Access>
struct NegativeSampling {
    static constexpr bool kFirstAlonePositive = true;
    const Word2Vec& task;
    const Access& access;
    std::uint64_t key;

    static int most(const Word2Vec& task) { return 1 + task.negative; }

    // Rows to compare with for `word`, that of kept token `at`; `draw` is a number that no other draw of the epoch has.
    int choose(int at, std::int32_t word, std::uint64_t draw, float** targets, float*) const {
        const auto drawn = [&](std::uint64_t number) FIRTH_INLINE_LAMBDA -> Drawn {
            if constexpr (Access::kOwn) {
                const std::uint32_t place = random_below(random_at(key, number), static_cast<std::uint32_t>(task.pool));
                return {access.block.pool[place], access.block.pool_out[place]};
            } else {
                const std::int32_t other = draw_noise(task.noise, task.n_words, key, number);
                return {other, access.out(other)};
            }
        };
        return negative_targets(word, access.kept_out(at, word), task.negative, draw, drawn, targets);
    }
};

// Hierarchical softmax (Morin & Bengio 2005): the turns on the way to the word.
template <class Access>
struct HierarchicalSoftmax {
    static constexpr bool kFirstAlonePositive = false;
    const Word2Vec& task;
    const Access& access;
    std::uint64_t key;

    static int most(const Word2Vec& task) { return task.longest_path; }

    int choose(int, std::int32_t word, std::uint64_t, float** targets, float* signs) const {
        return path_targets(task, word, [&](std::int32_t node) { return access.out(node); }, targets, signs);
    }
};

KeptTokens room_for_tokens(Arena& arena, int window) {
    const int tokens = kBlock + 2 * window + 1;  // one more: the filter writes before it decides
    KeptTokens kept;
    kept.words = arena.take<std::int32_t>(tokens);
    kept.first = arena.take<std::int32_t>(tokens);
    kept.last = arena.take<std::int32_t>(tokens);
    kept.positions = arena.take<std::int64_t>(tokens);
    return kept;
}

// The window of a center, kept tokens [from, to), less the center itself.
struct Window {
    int from, to;
};

Window window_of(const Sampler& sampler, const KeptTokens& kept, int center) {
    const std::uint64_t bits = sampler.bits(kept.positions[center]);
    const int reach = 1 + static_cast<int>(random_below(bits, static_cast<std::uint32_t>(sampler.task.window)));
    return {center - reach > kept.first[center] ? center - reach : kept.first[center],
            center + reach + 1 < kept.last[center] ? center + reach + 1 : kept.last[center]};
}

float rate_at(const Word2Vec& task, std::int64_t position) {
    const double all = static_cast<double>(task.epochs) * static_cast<double>(task.n_tokens);
    const double before = static_cast<double>(task.epoch) * static_cast<double>(task.n_tokens);
    const double progress = (before + static_cast<double>(position)) / all;
    return static_cast<float>(task.learning_rate - (task.learning_rate - task.min_learning_rate) * progress);
}

// --- Rows of their own: skip-gram -----------------------------------------------------------------------------------

// One step to come: up to kHidden of a center's neighbors, and the targets that they share.
struct Step {
    int center;
    int from, to;     // the neighbors: kept tokens [from, to) but the center
    int m;            // how many they are
    int n_targets;    // 0: there is no such step
    float** targets;  // the center's, and at their end the newest neighbor's row, to be prefetched
    float* signs;     // of each target
};

// Returns the steps of a stretch one after the other.
template <class Objective>
class Steps {
  public:
    Steps(const Sampler& sampler, const KeptTokens& kept, const Objective& objective)
        : sampler_(sampler), kept_(kept), objective_(objective), center_(kept.begin - 1) {}

    void next(Step& step) {
        step.m = 0;
        while (step.m == 0) {
            if (at_ == to_ && !next_center()) {
                step.n_targets = 0;
                return;
            }
            step.center = center_;
            step.from = at_;
            at_ = at_ + kHidden < to_ ? at_ + kHidden : to_;
            const bool inside = step.from <= center_ && center_ < at_;
            if (inside && at_ < to_) ++at_;
            step.to = at_;
            step.m = step.to - step.from - inside;
            ++part_;
        }
        const Word2Vec& task = sampler_.task;
        const auto draw = static_cast<std::uint64_t>(kept_.positions[step.center]) +
                          static_cast<std::uint64_t>(part_ - 1) * static_cast<std::uint64_t>(task.n_tokens);
        step.n_targets = objective_.choose(step.center, kept_.words[step.center], draw, step.targets, step.signs);
        // The widest reach brings this neighbor in first, or the end of the stretch does.
        const int reach = step.center + task.window;
        const int newest = reach < kept_.last[step.center] ? reach : step.to - 1;
        step.targets[step.n_targets] = objective_.access.kept_in(newest, kept_.words[newest]);
    }

  private:
    bool next_center() {
        if (++center_ >= kept_.end) {
            center_ = kept_.end;
            return false;
        }
        const Window window = window_of(sampler_, kept_, center_);
        at_ = window.from;
        to_ = window.to;
        part_ = 0;
        return true;
    }

    const Sampler& sampler_;
    const KeptTokens& kept_;
    const Objective& objective_;
    int center_;
    int at_ = 0, to_ = 0;  // the rest of the center's window
    int part_ = 0;         // parts of it returned so far
};

template <class Objective>
struct RowsOfTheirOwn {
    KeptTokens kept;
    Step steps[kAhead + 1];  // a ring
    float* expanded;         // signs for each pair of a step's six targets

    RowsOfTheirOwn(Arena& arena, const Word2Vec& task) {
        for (Step& step : steps) {
            step.targets = arena.take<float*>(Objective::most(task) + 2);
            step.signs = arena.take<float>(Objective::most(task) + 1);
        }
        // +1 for the first target's pairs, -1 for all others': a step whose first target alone is positive starts
        // pitch(m) before the first -1.
        expanded = arena.take<float>((1 + kTargets) * kHidden + kWidth);
        if (arena.base == nullptr) return;
        for (int i = 0; i < (1 + kTargets) * kHidden + kWidth; ++i) expanded[i] = i < kHidden ? 1.0f : -1.0f;
    }

    // Trains on the centers of `kept`; false where a dot product was not finite.
    bool train(const Sampler& sampler, const Objective& objective, StepScratch& scratch, Word2VecTally* tally) {
        const Word2Vec& task = sampler.task;
        const int floats = round_up(task.vector_size, kWidth);
        Steps<Objective> coming(sampler, kept, objective);
        for (int slot = 0; slot < kAhead; ++slot) coming.next(steps[slot]);
        for (int slot = 0; steps[slot].n_targets > 0; slot = slot == kAhead ? 0 : slot + 1) {
            Step& ahead = steps[slot == 0 ? kAhead : slot - 1];
            coming.next(ahead);
            Rows upcoming{ahead.targets, ahead.n_targets > 0 ? ahead.n_targets + 1 : 0};

            const Step& now = steps[slot];
            float* hidden[kHidden + 1];  // the last one is written and not used
            int m = 0;
            for (int c = now.from; c < now.to; ++c) {
                hidden[m] = objective.access.kept_in(c, kept.words[c]);
                m += c != now.center;
            }
            const std::int64_t position = kept.positions[now.center];
            const float rate = rate_at(task, position);
            for (int first = 0; first < now.n_targets; first += kTargets) {
                const int n = now.n_targets - first < kTargets ? now.n_targets - first : kTargets;
                const float* signs = expanded + kHidden - (first == 0 ? pitch(m) : 0);
                if constexpr (!Objective::kFirstAlonePositive) {
                    signs = expanded;
                    for (int j = 0; j < n; ++j) {
                        for (int i = 0; i < pitch(m); ++i) expanded[j * pitch(m) + i] = now.signs[first + j];
                    }
                }
                if (!step(hidden, m, now.targets + first, n, signs, rate, floats, upcoming, scratch)) {
                    tally->diverged_at = position;
                    return false;
                }
                upcoming.n = 0;
            }
            tally->examples += m;
        }
        return true;
    }
};

// --- A bag of rows: CBOW, and words composed of n-grams -------------------------------------------------------------

// A center to come: the rows of its bag, then the targets of each word that the bag predicts.
struct Center {
    std::int64_t position;
    std::int64_t n_rows;
    int n_predicted;     // 0 with n_rows 0: there is no such center
    float** rows;        // (n_rows + all targets), the targets word by word
    std::int64_t* ends;  // (n_predicted) where each word's targets end in `rows`
    float* signs;        // of each target, and room for one vector more
};

template <class Objective>
struct BagOfRows {
    KeptTokens kept;
    Center centers[2];
    float *mean, *moves, *hidden;  // the bag's vector as gathered, what it has moved by, and their sum

    BagOfRows(Arena& arena, const Word2Vec& task) {
        const std::int64_t words = 2 * static_cast<std::int64_t>(task.window);
        const std::int64_t most_rows = (task.cbow ? words : 1) * task.longest_bag;
        const std::int64_t predicted = task.cbow ? 1 : words;
        const std::int64_t most_targets = predicted * Objective::most(task) + 1;
        for (Center& center : centers) {
            center.rows = arena.take<float*>(most_rows + most_targets);
            center.ends = arena.take<std::int64_t>(predicted);
            center.signs = arena.take<float>(most_targets + kTargets + kWidth);
            if (arena.base != nullptr) {
                for (std::int64_t i = 0; i < most_targets + kTargets + kWidth; ++i) center.signs[i] = 0;
            }
        }
        mean = arena.take<float>(task.stride);
        moves = arena.take<float>(task.stride);
        hidden = arena.take<float>(task.stride);
    }

    void add_word(const Objective& objective, int at, Center& center) {
        const std::int32_t word = kept.words[at];
        const Word2Vec& task = objective.task;
        if (task.bag_begins == nullptr) {
            center.rows[center.n_rows++] = objective.access.kept_in(at, word);
            return;
        }
        for (std::int64_t i = task.bag_begins[word]; i < task.bag_begins[word + 1]; ++i) {
            center.rows[center.n_rows++] = objective.access.in(task.bag_rows[i]);
        }
    }

    void predict(const Objective& objective, int at, std::uint64_t draw, Center& center) {
        const std::int64_t from = center.n_predicted == 0 ? center.n_rows : center.ends[center.n_predicted - 1];
        float* const signs = center.signs + (from - center.n_rows);
        const int n = objective.choose(at, kept.words[at], draw, center.rows + from, signs);
        if constexpr (Objective::kFirstAlonePositive) {
            signs[0] = 1;
            for (int i = 1; i < n; ++i) signs[i] = -1;
        }
        center.ends[center.n_predicted++] = from + n;
    }

    // The next center from kept token `at` on that has a neighbor and something to predict; returns the token after
    // it.
    int prepare(const Sampler& sampler, const Objective& objective, int at, Center& center) {
        const Word2Vec& task = sampler.task;
        center.n_rows = center.n_predicted = 0;
        for (; at < kept.end; ++at) {
            const Window window = window_of(sampler, kept, at);
            if (window.to - window.from < 2) continue;
            center.position = kept.positions[at];
            const auto draw = static_cast<std::uint64_t>(center.position);
            if (task.cbow) {
                for (int c = window.from; c < window.to; ++c) {
                    if (c != at) add_word(objective, c, center);
                }
                predict(objective, at, draw, center);
            } else {
                add_word(objective, at, center);
                // Each word has a draw of its own: if its words shared a few negatives, training on one hidden vector
                // would gain little from them.
                const std::uint64_t words = 2 * static_cast<std::uint64_t>(task.window);
                for (int c = window.from; c < window.to; ++c) {
                    if (c != at)
                        predict(objective, c, draw * words + static_cast<std::uint64_t>(c - window.from), center);
                }
            }
            return at + 1;
        }
        return at;
    }

    bool train(const Sampler& sampler, const Objective& objective, StepScratch& scratch, Word2VecTally* tally) {
        const Word2Vec& task = sampler.task;
        const int floats = round_up(task.vector_size, kWidth);
        int at = prepare(sampler, objective, kept.begin, centers[0]);
        for (int slot = 0; centers[slot].n_predicted > 0; slot = 1 - slot) {
            const Center& now = centers[slot];
            Center& next = centers[1 - slot];
            at = prepare(sampler, objective, at, next);
            const std::int64_t coming = next.n_predicted == 0 ? 0 : next.ends[next.n_predicted - 1];
            const bool of_mean = !task.cbow || task.cbow_mean;
            const float share = 1.0f / static_cast<float>(now.n_rows);
            gather(now.rows, now.n_rows, of_mean ? share : 1.0f, floats, mean);
            clear(moves, floats);
            float* from = mean;
            const float rate = rate_at(task, now.position);
            std::int64_t target = now.n_rows;
            const std::int64_t last = now.ends[now.n_predicted - 1];
            for (int word = 0; word < now.n_predicted; ++word) {
                // The next center's rows are prefetched in as many parts as there are words.
                const std::int64_t part = coming * word / now.n_predicted, end = coming * (word + 1) / now.n_predicted;
                Rows upcoming{next.rows + part, end - part};
                while (target < now.ends[word]) {
                    const std::int64_t left = now.ends[word] - target;
                    const int n = left < kTargets ? static_cast<int>(left) : kTargets;
                    if (!step(&from, 1, now.rows + target, n, now.signs + (target - now.n_rows), rate, floats, upcoming,
                              scratch, moves)) {
                        tally->diverged_at = now.position;
                        return false;
                    }
                    target += n;
                    upcoming.n = 0;
                    if (target == last) break;
                    for (int d = 0; d < floats; d += kWidth) store(hidden + d, load(mean + d) + load(moves + d));
                    from = hidden;
                }
            }
            // The bag's vector moves by its gradient, whether it is the rows' mean or their sum.
            scatter(now.rows, now.n_rows, of_mean ? 1.0f : share, floats, moves);
            // In the tree of a single word there is nothing to decide, and so no example.
            if (last > now.n_rows) tally->examples += now.n_predicted;
        }
        return true;
    }
};

std::uint64_t sampling_key(const Word2Vec& task) {
    return random_key(task.seed, 2 * static_cast<std::uint64_t>(task.epoch));
}
std::uint64_t drawing_key(const Word2Vec& task) {
    return random_key(task.seed, 2 * static_cast<std::uint64_t>(task.epoch) + 1);
}

// Trains on stretches of tokens: next(kept) gives one after the other, until it gives none.
template <template <class> class Rows, class Objective, class Access, class Next>
void train_stretches(const Word2Vec& task, const Access& access, Next& next, Word2VecTally* tally, Arena arena) {
    alignas(64) float dots[kTargets * kHidden + kWidth];
    StepScratch scratch{dots, {splat(1), splat_int(0)}, 0};
    Rows<Objective> rows(arena, task);
    const Sampler sampler{task, sampling_key(task)};
    const Objective objective{task, access, drawing_key(task)};
    while (next(sampler, rows.kept)) {
        tally->centers += rows.kept.end - rows.kept.begin;
        if (!rows.train(sampler, objective, scratch, tally)) return;
        const double loss = take(scratch.loss) - 0.693147180559945309 * static_cast<double>(scratch.padding);
        scratch.padding = 0;
        // To a multiple of 2^-20: sums of such numbers are exact, and cuts between stretches do not change them.
        tally->loss += __builtin_nearbyint(loss * 0x1p20) * 0x1p-20;
    }
}

bool has_bags(const Word2Vec& task) { return task.cbow || task.bag_begins != nullptr; }

template <class Access, class Next>
void train(const Word2Vec& task, const Access& access, Next next, Word2VecTally* tally, Arena arena) {
    if (has_bags(task) && task.noise) {
        train_stretches<BagOfRows, NegativeSampling<Access>>(task, access, next, tally, arena);
    } else if (has_bags(task)) {
        train_stretches<BagOfRows, HierarchicalSoftmax<Access>>(task, access, next, tally, arena);
    } else if (task.noise) {
        train_stretches<RowsOfTheirOwn, NegativeSampling<Access>>(task, access, next, tally, arena);
    } else {
        train_stretches<RowsOfTheirOwn, HierarchicalSoftmax<Access>>(task, access, next, tally, arena);
    }
}

std::int64_t word2vec_scratch_bytes(const Word2Vec& task) {
    Arena arena{nullptr};
    room_for_tokens(arena, task.window);
    if (has_bags(task)) {
        if (task.noise)
            BagOfRows<NegativeSampling<SharedRows>>(arena, task);
        else
            BagOfRows<HierarchicalSoftmax<SharedRows>>(arena, task);
    } else {
        if (task.noise)
            RowsOfTheirOwn<NegativeSampling<SharedRows>>(arena, task);
        else
            RowsOfTheirOwn<HierarchicalSoftmax<SharedRows>>(arena, task);
    }
    return arena.used;
}

void word2vec_range(const Word2Vec& task, std::int64_t begin, std::int64_t end, Word2VecTally* tally, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    KeptTokens room = room_for_tokens(arena, task.window);
    const auto next = [&](const Sampler& sampler, KeptTokens& kept) {
        if (begin >= end) return false;
        const std::int64_t stop = begin + kBlock < end ? begin + kBlock : end;
        sample_stretch(sampler, begin, stop, room);
        kept = room;
        begin = stop;
        return true;
    };
    train(task, SharedRows{task}, next, tally, arena);
}

void word2vec_sample(const Word2Vec& task, std::int64_t begin, std::int64_t end, Word2VecBlock* block) {
    sample_stretch({task, sampling_key(task)}, begin, end, block->kept);
    if (task.noise == nullptr) return;
    const std::uint64_t key = mix(drawing_key(task)),
                        first = static_cast<std::uint64_t>(begin) * static_cast<std::uint64_t>(task.pool);
    for (int i = 0; i < task.pool; ++i) {
        block->pool[i] = draw_noise(task.noise, task.n_words, key, first + static_cast<std::uint64_t>(i));
    }
}

void word2vec_block(const Word2Vec& task, Word2VecBlock* block, Word2VecTally* tally, void* scratch) {
    bool given = false;
    const auto next = [&](const Sampler&, KeptTokens& kept) {
        if (given) return false;
        kept = block->kept;
        return given = true;
    };
    const BlockAccess access{task, *block};
    for (int i = 0; i < block->kept.n; ++i) {
        if (task.bag_begins == nullptr) block->kept_in[i] = access.in(block->kept.words[i]);
        if (task.noise != nullptr) block->kept_out[i] = access.out(block->kept.words[i]);
    }
    for (int i = 0; task.noise != nullptr && i < task.pool; ++i) block->pool_out[i] = access.out(block->pool[i]);
    train(task, access, next, tally, {static_cast<char*>(scratch)});
}

void copy_rows(const float* matrix, std::int64_t stride, const BlockRows& rows) {
    for (std::int64_t i = 0; i < rows.n; ++i) {
        if (i + kRowsAhead < rows.n) {
            const float* const next = matrix + rows.rows[i + kRowsAhead] * stride;
            for (std::int64_t d = 0; d < stride; d += kLine) __builtin_prefetch(next + d, 0, 2);
        }
        const float* const row = matrix + rows.rows[i] * stride;
        float* const copy = rows.copies + i * stride;
        for (std::int64_t d = 0; d < stride; d += kWidth) store(copy + d, load(row + d));
    }
}

void merge_copies(float* matrix, std::int64_t stride, const std::int32_t* rows, const float* shares, std::int64_t n,
                  const BlockRows* blocks, int n_blocks, std::int64_t part, std::int64_t parts) {
    for (std::int64_t i = part; i < n; i += parts) {
        if (i + kRowsAhead * parts < n) {
            const float* const next = matrix + rows[i + kRowsAhead * parts] * stride;
            for (std::int64_t d = 0; d < stride; d += kLine) __builtin_prefetch(next + d, 1, 2);
        }
        const float* copies[kMostBlocks];
        int found = 0;
        for (int b = 0; b < n_blocks; ++b) {
            const std::int64_t place = blocks[b].places[i];
            if (place >= 0) copies[found++] = blocks[b].copies + place * stride;
        }
        float* const to = matrix + rows[i] * stride;
        for (std::int64_t d = 0; d < stride; d += kWidth) {
            const Vec before = load(to + d);
            Vec moves = load(copies[0] + d) - before;
            for (int c = 1; c < found; ++c) moves += load(copies[c] + d) - before;
            store(to + d, before + moves * shares[i]);
        }
    }
}

}  // namespace

const Word2VecKernels word2vec_kernels{
    .scratch_bytes = word2vec_scratch_bytes,
    .range = word2vec_range,
    .sample = word2vec_sample,
    .copy_rows = copy_rows,
    .block = word2vec_block,
    .merge_copies = merge_copies,
};

}  // namespace firth::FIRTH_ISA
