// The update rule is that of logistic.hpp; a trainer only chooses the rows.
//
// Rows: plain skip-gram takes for hidden rows the whole window of a center, which shares its targets (Ji et al. 2016);
// the work is then small dense blocks instead of single dot products. Everything else has one hidden vector made of a
// bag of rows: CBOW of its window's, a word of its character n-grams. Every row of the bag is moved by the whole
// gradient, so the bag's mean moves by exactly that: it is gathered once and scattered once, whatever it predicts in
// between. A few neighboring centers are trained side by side.
//
// Objective: a word is distinguished from random ones, or found along its path in a Huffman tree. Either way it is a
// list of target rows with a sign for each.

#include "kernels/word2vec.hpp"

#include "kernels/hot_rows.hpp"
#include "kernels/logistic.hpp"

namespace firth::FIRTH_ISA {
namespace {

// Steps between a prefetch and its use.
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

bool has_bags(const Word2Vec& task) { return task.cbow || task.bag_begins != nullptr; }

// Where rows lie: in the matrices, which all threads share, but for the hot ones...
struct SharedRows {
    static constexpr bool kOwn = false;
    const Word2Vec& task;
    HotRows hot_in, hot_out;

    // The most frequent words come first, and the root of the tree last.
    SharedRows(Arena& arena, const Word2Vec& given, float rate)
        : task(given),
          hot_in(arena, task.vectors, task.stride, 0, hot(task.n_words), task.threads, kCurvature * rate * pairs_in()),
          hot_out(arena, task.context, task.stride, task.noise ? 0 : task.n_rows_out - hot(task.n_rows_out),
                  hot(task.n_rows_out), task.threads, kCurvature * rate * pairs_out()) {}
    static std::int64_t hot(std::int64_t rows) { return rows < kHotRows ? rows : kHotRows; }
    // In one use, a row is paired with about so many of the other matrix. Of CBOW's bag it is one among many.
    float pairs_in() const {
        const int targets = task.noise ? 1 + task.negative : task.longest_path / 2;
        return static_cast<float>(targets) / static_cast<float>(task.cbow ? task.window + 1 : 1);
    }
    float pairs_out() const { return static_cast<float>(has_bags(task) ? kGroup : task.window + 1); }
    void finish() const {
        hot_in.finish();
        hot_out.finish();
    }
    float* in(std::int64_t row) const { return hot_in.use(row); }
    float* out(std::int64_t row) const { return hot_out.use(row); }
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

    Drawn drawn(std::uint64_t number) const {
        if constexpr (Access::kOwn) {
            const std::uint32_t place = random_below(random_at(key, number), static_cast<std::uint32_t>(task.pool));
            return {access.block.pool[place], access.block.pool_out[place]};
        } else {
            const std::int32_t other = draw_noise(task.noise, task.n_words, key, number);
            return {other, access.out(other)};
        }
    }

    // Targets of one word at most: with its negatives, or without them.
    static int most(const Word2Vec& task) { return 1 + task.negative; }
    static int most_own(const Word2Vec&) { return 1; }
    // Negatives that the words of a group share.
    static int shared(const Word2Vec& task) { return task.negative; }

    // Rows to compare with for `word`, that of kept token `at`; `draw` is a number that no other draw of the epoch has.
    int choose(int at, std::int32_t word, std::uint64_t draw, float** targets, float*) const {
        const auto draw_one = [&](std::uint64_t number) FIRTH_INLINE_LAMBDA { return drawn(number); };
        return negative_targets(word, access.kept_out(at, word), task.negative, draw, draw_one, targets);
    }
    int choose_own(int at, std::int32_t word, float** targets, float* signs) const {
        targets[0] = access.kept_out(at, word);
        signs[0] = 1;
        return 1;
    }
    void choose_shared(std::uint64_t draw, float** targets, std::int32_t* words) const {
        const std::uint64_t first = draw * static_cast<std::uint64_t>(task.negative);
        for (int k = 0; k < task.negative; ++k) {
            const Drawn other = drawn(first + static_cast<std::uint64_t>(k));
            targets[k] = other.row;
            words[k] = other.which;
        }
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
    static int most_own(const Word2Vec& task) { return task.longest_path; }
    static int shared(const Word2Vec&) { return 0; }

    int choose(int at, std::int32_t word, std::uint64_t, float** targets, float* signs) const {
        return choose_own(at, word, targets, signs);
    }
    int choose_own(int, std::int32_t word, float** targets, float* signs) const {
        return path_targets(task, word, [&](std::int32_t node) { return access.out(node); }, targets, signs);
    }
    void choose_shared(std::uint64_t, float**, std::int32_t*) const {}
};

KeptTokens room_for_tokens(Arena& arena, int window) {
    const int tokens = kStretchTokens + 2 * window + 1;  // one more: the filter writes before it decides
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

// A center: the rows of its bag, and the words that the bag predicts, each with the targets that are its own.
struct Center {
    std::int64_t position;
    std::int64_t n_rows;
    int n_predicted;
    float** rows;                  // (n_rows + all targets), the targets word by word
    float* signs;                  // of each target, and room for a step more
    std::int64_t* ends;            // (n_predicted) where each word's targets end in `rows`
    std::int32_t* words;           // (n_predicted)
    std::uint64_t* draws;          // (n_predicted) a number that no other draw of the epoch has
    float *mean, *moves, *hidden;  // (stride) the bag's vector as gathered, what it has moved by, and their sum
    float* from;                   // the vector now: `mean` or `hidden`

    std::int64_t begin_of(int word) const { return word == 0 ? n_rows : ends[word - 1]; }
    std::int64_t n_all() const { return begin_of(n_predicted); }
};

// Neighboring centers, trained side by side: their bags predict one word each, then the next one each. The words that
// are predicted at the same time share their negatives, so that a row of them is fetched once for several bags; and
// several chains of operations that wait for each other take little longer than one.
struct Group {
    Center centers[kGroup];
    int n;
    int most_predicted;   // by one of them
    float** shared;       // (most_predicted, K)
    std::int32_t* drawn;  // (most_predicted, K) their words
};

template <class Objective>
struct BagOfRows {
    KeptTokens kept;
    Group groups[2];
    float *dots, *signs;  // of a step's pairs

    static constexpr int kPairs = 2 * kGroup * kTargets + kWidth;  // a step's at most, and room for a vector more

    BagOfRows(Arena& arena, const Word2Vec& task) {
        const std::int64_t words = 2 * static_cast<std::int64_t>(task.window);
        const std::int64_t most_rows = (task.cbow ? words : 1) * task.longest_bag;
        const std::int64_t predicted = task.cbow ? 1 : words;
        const std::int64_t most_targets = predicted * Objective::most_own(task);
        static_assert(kGroup % 4 == 0);  // as `pitch` rounds
        for (Group& group : groups) {
            for (Center& center : group.centers) {
                center.rows = arena.take<float*>(most_rows + most_targets);
                center.signs = arena.take<float>(most_targets + kTargets);
                center.ends = arena.take<std::int64_t>(predicted);
                center.words = arena.take<std::int32_t>(predicted);
                center.draws = arena.take<std::uint64_t>(predicted);
                center.mean = arena.take<float>(task.stride);
                center.moves = arena.take<float>(task.stride);
                center.hidden = arena.take<float>(task.stride);
            }
            group.shared = arena.take<float*>(predicted * Objective::shared(task));
            group.drawn = arena.take<std::int32_t>(predicted * Objective::shared(task));
        }
        dots = arena.take<float>(kPairs);
        signs = arena.take<float>(kPairs);
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
        const int number = center.n_predicted++;
        const std::int64_t from = center.begin_of(number);
        center.words[number] = kept.words[at];
        center.draws[number] = draw;
        center.ends[number] =
            from + objective.choose_own(at, kept.words[at], center.rows + from, center.signs + (from - center.n_rows));
    }

    // The next center from kept token `at` on that has a neighbor; returns the token after it. Without one n_predicted
    // is 0.
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

    int prepare(const Sampler& sampler, const Objective& objective, int at, Group& group) {
        group.n = group.most_predicted = 0;
        const int shared = Objective::shared(sampler.task);
        while (group.n < kGroup) {
            const Center& center = group.centers[group.n];
            at = prepare(sampler, objective, at, group.centers[group.n]);
            if (center.n_predicted == 0) break;
            ++group.n;
            // The first center that predicts a word number `most_predicted` draws for all that do.
            for (int& word = group.most_predicted; word < center.n_predicted; ++word) {
                objective.choose_shared(center.draws[word], group.shared + word * shared, group.drawn + word * shared);
            }
        }
        return at;
    }

    // A step of the bags that predict a word number `word`.
    struct Step {
        Center* centers[kGroup];
        float *hidden[kGroup], *moves[kGroup];
        int m = 0;
        float* const* shared;  // of the shared targets the step's
        const std::int32_t* drawn;
        int n_shared;
        float** own[kGroup];  // the same of the targets of each bag
        int n_own[kGroup];
    };

    // Fills `dots` and `signs` of a step: (n_shared, pitch(m)) pairs with shared targets, then those of each bag.
    // Returns how many numbers that are.
    int pairs_of(const Step& now, int word, int floats, StepScratch& scratch) const {
        const int m4 = pitch(now.m);
        int n = now.n_shared * m4, real = 0;
        if (n > 0) {
            with_count<kTargets>(now.n_shared, [&](auto count) FIRTH_INLINE_LAMBDA {
                dot_pairs<count.n>(dots, now.hidden, now.m, now.shared, floats);
            });
        }
        for (int j = 0; j < now.n_shared; ++j) {
            for (int i = 0; i < m4; ++i) {
                // A word is not its own negative.
                const bool pair = i < now.m && now.drawn[j] != now.centers[i]->words[word];
                signs[j * m4 + i] = pair ? -1.0f : 0.0f;
                real += pair;
            }
        }
        for (int i = 0; i < now.m; ++i) {
            if (now.n_own[i] == 0) continue;
            const Center& center = *now.centers[i];
            with_count<kTargets>(now.n_own[i], [&](auto count) FIRTH_INLINE_LAMBDA {
                dot_row<count.n>(dots + n, now.hidden[i], now.own[i], floats);
            });
            const float* const own = center.signs + (now.own[i] - (center.rows + center.n_rows));
            for (int j = 0; j < now.n_own[i]; ++j) signs[n + j] = own[j];
            n += now.n_own[i];
            real += now.n_own[i];
        }
        store(dots + n, Vec{});
        store(signs + n, Vec{});
        n = round_up(n, kWidth);
        scratch.padding += n - real;
        return n;
    }

    // The center of the first dot product that is not finite.
    const Center* diverged(const Step& now) const {
        for (int i = 0; i < now.m; ++i) {
            int own = now.n_shared * pitch(now.m);
            for (int other = 0; other < i; ++other) own += now.n_own[other];
            for (int j = 0; j < now.n_own[i]; ++j) {
                if (!(dots[own + j] * 0.0f == 0.0f)) return now.centers[i];
            }
            for (int j = 0; j < now.n_shared; ++j) {
                if (!(dots[j * pitch(now.m) + i] * 0.0f == 0.0f)) return now.centers[i];
            }
        }
        return now.centers[0];
    }

    // Of `all` rows those to prefetch while number `word` of `n` is trained.
    static Rows part(float** rows, std::int64_t all, int word, int n) {
        if (n == 1) return {rows, all};  // CBOW's, without two divisions
        const std::int64_t from = all * word / n;
        return {rows + from, all * (word + 1) / n - from};
    }

    // Trains the bags of a group that predict a word number `word`, in steps of at most kTargets targets of each. A
    // step's gradients are those before it. Returns the center where a dot product is not finite, whose step is not
    // taken, or null.
    const Center* predict_words(Group& group, const Group& next, int word, float rate, const Word2Vec& task,
                                StepScratch& scratch) {
        const int floats = round_up(task.vector_size, kWidth), all_shared = Objective::shared(task);
        Step now;
        int all_own = 0;
        for (int i = 0; i < group.n; ++i) {
            Center& center = group.centers[i];
            if (word >= center.n_predicted) continue;
            now.centers[now.m] = &center;
            now.moves[now.m++] = center.moves;
            const auto own = static_cast<int>(center.ends[word] - center.begin_of(word));
            all_own = own > all_own ? own : all_own;
        }
        for (int own = 0, shared = 0; own < all_own || shared < all_shared;) {
            const bool first = own == 0;
            const int most_own = all_own - own < kTargets ? all_own - own : kTargets;
            now.n_shared = all_shared - shared < kTargets - most_own ? all_shared - shared : kTargets - most_own;
            now.shared = group.shared + word * all_shared + shared;
            now.drawn = group.drawn + word * all_shared + shared;
            for (int i = 0; i < now.m; ++i) {
                Center& center = *now.centers[i];
                now.hidden[i] = center.from;
                now.own[i] = center.rows + center.begin_of(word) + own;
                const auto left = static_cast<int>(center.ends[word] - center.begin_of(word)) - own;
                now.n_own[i] = left < 0 ? 0 : left < most_own ? left : most_own;
            }
            own += most_own;
            shared += now.n_shared;

            if (!gradients(dots, signs, rate, pairs_of(now, word, floats, scratch), scratch)) return diverged(now);
            const float* g = dots;
            if (now.n_shared > 0) {
                const Rows upcoming =
                    part(next.shared, first ? next.most_predicted * all_shared : 0, word, group.most_predicted);
                with_count<kTargets>(now.n_shared, [&](auto count) FIRTH_INLINE_LAMBDA {
                    apply<count.n, true>(g, pitch(now.m), now.hidden, now.m, now.shared, floats, upcoming, now.moves);
                });
                g += now.n_shared * pitch(now.m);
            }
            for (int i = 0; i < now.m; ++i) {
                Center& center = *now.centers[i];
                if (now.n_own[i] > 0) {
                    const Center& coming = next.centers[i];
                    const Rows upcoming =
                        part(coming.rows, first && i < next.n ? coming.n_all() : 0, word, center.n_predicted);
                    with_count<kTargets>(now.n_own[i], [&](auto count) FIRTH_INLINE_LAMBDA {
                        apply<count.n, true>(g, 1, now.hidden + i, 1, now.own[i], floats, upcoming, now.moves + i);
                    });
                    g += now.n_own[i];
                }
                for (int d = 0; d < floats; d += kWidth) {
                    store(center.hidden + d, load(center.mean + d) + load(center.moves + d));
                }
                center.from = center.hidden;
            }
        }
        return nullptr;
    }

    bool train(const Sampler& sampler, const Objective& objective, StepScratch& scratch, Word2VecTally* tally) {
        const Word2Vec& task = sampler.task;
        const int floats = round_up(task.vector_size, kWidth);
        const bool of_mean = !task.cbow || task.cbow_mean;
        int at = prepare(sampler, objective, kept.begin, groups[0]);
        for (int slot = 0; groups[slot].n > 0; slot = 1 - slot) {
            Group& now = groups[slot];
            Group& next = groups[1 - slot];
            at = prepare(sampler, objective, at, next);
            for (int i = 0; i < now.n; ++i) {
                Center& center = now.centers[i];
                const float share = 1.0f / static_cast<float>(center.n_rows);
                gather(center.rows, center.n_rows, of_mean ? share : 1.0f, floats, center.mean);
                clear(center.moves, floats);
                center.from = center.mean;
            }
            const float rate = rate_at(task, now.centers[0].position);
            for (int word = 0; word < now.most_predicted; ++word) {
                const Center* const bad = predict_words(now, next, word, rate, task, scratch);
                if (bad != nullptr) {
                    tally->diverged_at = bad->position;
                    return false;
                }
            }
            for (int i = 0; i < now.n; ++i) {
                const Center& center = now.centers[i];
                // The bag's vector moves by its gradient, whether it is the rows' mean or their sum.
                const float share = of_mean ? 1.0f : 1.0f / static_cast<float>(center.n_rows);
                scatter(center.rows, center.n_rows, share, floats, center.moves);
                // In the tree of a single word there is nothing to decide, and so no example.
                if (center.n_all() > center.n_rows) tally->examples += center.n_predicted;
            }
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
    SharedRows(arena, task, 0);
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

void word2vec_range(const Word2Vec& task, std::int64_t* next_begin, std::int64_t end, Word2VecTally* tally,
                    void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    KeptTokens room = room_for_tokens(arena, task.window);
    const SharedRows rows(arena, task, rate_at(task, *next_begin));
    const auto next = [&](const Sampler& sampler, KeptTokens& kept) {
        const std::int64_t begin = __atomic_fetch_add(next_begin, kStretchTokens, __ATOMIC_RELAXED);
        if (begin >= end) return false;
        sample_stretch(sampler, begin, begin + kStretchTokens < end ? begin + kStretchTokens : end, room);
        kept = room;
        return true;
    };
    train(task, rows, next, tally, arena);
    rows.finish();
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
