#include "runtime/word2vec.hpp"

#include <algorithm>
#include <bit>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "runtime/aligned.hpp"
#include "runtime/pages.hpp"
#include "runtime/phases.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

// The share of its blocks' summed moves that a row takes. Each block moves its own copy of the row, and knows nothing
// of the others' moves. If a row is pulled a few times only, the sum is what one thread would do. If it is pulled
// often, it comes to rest within each block: the sum would carry it n_blocks times too far, and training would diverge,
// so it takes the mean. In between, a pull x closes x / (1 + x) of the way, as an implicit gradient step does, and
// pulls add up: all blocks together close pull / (1 + pull), each of them alone (pull / n) / (1 + pull / n).
float joint_share(float pull, int n_blocks) { return (1 + pull / static_cast<float>(n_blocks)) / (1 + pull); }

// Which rows of a matrix a round's blocks need, and which of them several do.
class Needs {
  public:
    // At most `most` times does a round need a row.
    Needs(std::int64_t rows, std::int64_t most)
        : marks_(static_cast<std::size_t>(rows)),
          pulls_(static_cast<std::size_t>(rows)),
          numbers_(static_cast<std::size_t>(rows)),
          shared_(static_cast<std::size_t>(std::min(rows, most)) + 1),
          shares_(shared_.size()) {}

    void begin_round() {
        n_shared_ = 0;
        if (++round_ <= 0xFFFF) return;
        std::fill(marks_.begin(), marks_.end(), 0);
        round_ = 1;
    }
    // The block needs the row, and pulls it so much. Without a branch: whether a row is needed for the first time is
    // unpredictable.
    void need(std::int32_t row, int block, float pull) {
        std::uint32_t& mark = marks_[static_cast<std::size_t>(row)];
        const std::uint32_t blocks = mark >> 16 == round_ ? mark & 0xFFFF : 0, own = 1u << block;
        float& pulls = pulls_[static_cast<std::size_t>(row)];
        pulls = pull + (blocks != 0 ? pulls : 0);
        mark = round_ << 16 | blocks | own;
        shared_[n_shared_] = row;
        n_shared_ += blocks != 0 && (blocks & (blocks - 1)) == 0 && blocks != own;
    }
    void end_round() {
        for (std::size_t i = 0; i < n_shared_; ++i) {
            const auto row = static_cast<std::size_t>(shared_[i]);
            numbers_[row] = static_cast<std::int32_t>(i);
            shares_[i] = joint_share(pulls_[row], std::popcount(marks_[row] & 0xFFFF));
        }
    }
    const std::uint32_t* marks() const { return marks_.data(); }
    const std::int32_t* numbers() const { return numbers_.data(); }
    // The rows that several blocks need, and whether one of them is among those.
    std::span<const std::int32_t> shared() const { return {shared_.data(), n_shared_}; }
    // What share of its moves each of them takes.
    const float* shares() const { return shares_.data(); }
    bool needs(std::size_t shared, int block) const {
        return (marks_[static_cast<std::size_t>(shared_[shared])] >> block & 1) != 0;
    }

  private:
    std::uint32_t round_ = 0;
    std::vector<std::uint32_t> marks_;   // the last round that needed a row, above a bit for each of its blocks
    std::vector<float> pulls_;           // of the round's blocks, summed
    std::vector<std::int32_t> numbers_;  // of a row among the shared ones, where it is one
    std::vector<std::int32_t> shared_;   // with room for one that is not
    std::vector<float> shares_;
    std::size_t n_shared_ = 0;
};

// Room for the copies of one block's rows. Pages that are never written to are never real, so it may be ample.
class Copies {
  public:
    Copies(std::int64_t most, std::int64_t stride)
        : rows_(static_cast<std::size_t>(most) * sizeof(std::int32_t)),
          copies_(static_cast<std::size_t>(most * stride) * sizeof(float)) {}

    // Names the rows that block number `block` has to copy.
    BlockRows begin_round(const Needs& needs, int block) {
        places_.assign(needs.shared().size(), -1);
        BlockRows own{needs.marks(), needs.numbers(), places_.data(), rows_.as<std::int32_t>(), copies_.as<float>(), 0};
        for (std::size_t i = 0; i < places_.size(); ++i) {
            if (!needs.needs(i, block)) continue;
            places_[i] = static_cast<std::int32_t>(own.n);
            own.rows[own.n++] = needs.shared()[i];
        }
        return own;
    }

  private:
    std::vector<std::int32_t> places_;
    Pages rows_, copies_;
};

// Tokens of a block with both its windows, and the times that it can need rows.
std::int64_t most_tokens(const Word2Vec& task) { return kBlockTokens + 2 * static_cast<std::int64_t>(task.window) + 1; }
std::int64_t most_in(const Word2Vec& task) { return most_tokens(task) * task.longest_bag; }
std::int64_t most_out(const Word2Vec& task) {
    return task.noise ? most_tokens(task) + task.pool : most_tokens(task) * task.longest_path;
}

// Calls use(row, pull) for each row of `vectors` that a block's words are made of. A word's window holds window + 1
// others on average, and pairs it with the targets of each.
template <class Use>
void rows_in(const Word2Vec& task, const Word2VecBlock& block, Use&& use) {
    std::int64_t targets = 0;
    for (int i = 0; i < block.kept.n; ++i) {
        const std::int32_t word = block.kept.words[i];
        targets += task.noise != nullptr ? 1 + task.negative : task.path_begins[word + 1] - task.path_begins[word];
    }
    const float mean_targets = static_cast<float>(targets) / static_cast<float>(std::max(block.kept.n, 1));
    const float pull = kCurvature * task.learning_rate * static_cast<float>(task.window + 1) * mean_targets;
    for (int i = 0; i < block.kept.n; ++i) {
        const std::int32_t word = block.kept.words[i];
        if (task.bag_begins == nullptr) {
            use(word, pull);
            continue;
        }
        for (std::int64_t r = task.bag_begins[word]; r < task.bag_begins[word + 1]; ++r) use(task.bag_rows[r], pull);
    }
}

// The same for the rows of `context` that they are compared with. A word is predicted from each word of its window, or
// of CBOW once.
template <class Use>
void rows_out(const Word2Vec& task, const Word2VecBlock& block, Use&& use) {
    const float pull = kCurvature * task.learning_rate * static_cast<float>(task.cbow ? 1 : task.window + 1);
    for (int i = 0; i < block.kept.n; ++i) {
        const std::int32_t word = block.kept.words[i];
        if (task.noise != nullptr) {
            use(word, pull);
            continue;
        }
        for (std::int64_t n = task.path_begins[word]; n < task.path_begins[word + 1]; ++n) {
            use(task.path_nodes[n], pull);
        }
    }
    if (task.noise == nullptr) return;
    const float drawn = static_cast<float>(task.negative) * static_cast<float>(block.kept.n) /
                        static_cast<float>(task.pool);  // how often each of the pool is, on average
    for (int i = 0; i < task.pool; ++i) use(block.pool[i], drawn * pull);
}

// Rounds of blocks, and what of them can be done side by side. What a round needs is known before the one before it is
// trained, so there are two phases to a round: it is trained while the next one's needs are found, and merged while the
// one after that is sampled. Hence two of everything.
class Rounds {
  public:
    Rounds(const Word2Vec& task, std::int64_t begin, std::int64_t end, int n_threads)
        : task_(task),
          first_((begin + kRoundTokens - 1) / kRoundTokens * kRoundTokens),
          n_rounds_(std::max<std::int64_t>(0, (end - first_ + kRoundTokens - 1) / kRoundTokens)),
          n_threads_(n_threads),
          scratch_(static_cast<std::size_t>(n_threads)) {
        for (int i = 0; i < 2; ++i) slots_.emplace_back(std::make_unique<Slot>(task));
    }

    Word2VecTally train() {
        if (n_rounds_ == 0) return {};
        Phases phases(begin(Phase{.sampled = 0}));
        parallel(n_threads_, [&](int thread) {
            phases.run([&](int number) { work(number, thread); }, [&] { return begin(following()); });
        });
        return all_;
    }

  private:
    // Room for a block's tokens and its copies.
    struct Room {
        Word2VecBlock block;
        Word2VecTally tally;
        std::vector<std::int32_t> words, pool;
        std::vector<std::int64_t> positions;
        std::vector<float*> pointers;
        Copies in, out;

        explicit Room(const Word2Vec& task)
            : words(static_cast<std::size_t>(3 * most_tokens(task))),
              pool(static_cast<std::size_t>(task.pool)),
              positions(static_cast<std::size_t>(most_tokens(task))),
              pointers(static_cast<std::size_t>(2 * most_tokens(task) + task.pool)),
              in(std::min(most_in(task), task.n_rows_in), task.stride),
              out(std::min(most_out(task), task.n_rows_out), task.stride) {
            const std::int64_t tokens = most_tokens(task);
            std::int32_t* const word = words.data();
            float** const pointer = pointers.data();
            block = {{word, word + tokens, word + 2 * tokens, positions.data(), 0, 0, 0},
                     pool.data(),
                     {},
                     {},
                     pointer,
                     pointer + tokens,
                     pointer + 2 * tokens};
        }
    };
    // Of one round.
    struct Slot {
        std::vector<std::unique_ptr<Room>> rooms;
        Needs in, out;

        explicit Slot(const Word2Vec& task)
            : in(task.n_rows_in, kRoundBlocks * most_in(task)), out(task.n_rows_out, kRoundBlocks * most_out(task)) {
            for (int b = 0; b < kRoundBlocks; ++b) rooms.emplace_back(std::make_unique<Room>(task));
        }
    };
    // The rounds that a phase works on, or kNone.
    static constexpr std::int64_t kNone = -1;
    struct Phase {
        std::int64_t trained = kNone, needed = kNone, merged = kNone, sampled = kNone;
    };

    std::int64_t start_of(std::int64_t round) const { return first_ + round * kRoundTokens; }
    int blocks_of(std::int64_t round) const {
        if (round == kNone) return 0;
        const std::int64_t tokens = std::min(kRoundTokens, task_.n_tokens - start_of(round));
        return static_cast<int>((tokens + kBlockTokens - 1) / kBlockTokens);
    }
    Slot& slot_of(std::int64_t round) { return *slots_[static_cast<std::size_t>(round % 2)]; }

    // Takes up a phase; gives the number of its tasks.
    int begin(const Phase& phase) {
        phase_ = phase;
        // Long blocks first, so that the short ones even out who has done how much.
        const int trained = blocks_of(phase.trained);
        const auto centers = [&](int b) {
            const KeptTokens& kept = slot_of(phase.trained).rooms[static_cast<std::size_t>(b)]->block.kept;
            return kept.end - kept.begin;
        };
        std::iota(order_, order_ + trained, 0);
        std::sort(order_, order_ + trained, [&](int a, int b) { return centers(a) > centers(b); });
        return trained + (phase.needed == kNone ? 0 : 2) + (phase.merged == kNone ? 0 : n_threads_) +
               blocks_of(phase.sampled);
    }

    // After sampling the first round, and finding its needs, training and merging take turns.
    Phase following() {
        const auto if_any = [&](std::int64_t round) { return round < n_rounds_ ? round : kNone; };
        if (phase_.sampled == 0) return {.needed = 0, .sampled = if_any(1)};
        if (phase_.needed == 0) return {.trained = 0, .needed = if_any(1)};
        if (phase_.merged != kNone) {
            const std::int64_t round = phase_.merged + 1;
            return {.trained = if_any(round), .needed = if_any(round + 1)};
        }
        if (!add_up(phase_.trained)) return {};
        return {.merged = phase_.trained, .sampled = if_any(phase_.trained + 2)};
    }

    // False where training diverged.
    bool add_up(std::int64_t round) {
        for (int b = 0; b < blocks_of(round); ++b) {
            const Word2VecTally& tally = slot_of(round).rooms[static_cast<std::size_t>(b)]->tally;
            all_.loss += tally.loss;
            all_.examples += tally.examples;
            all_.centers += tally.centers;
            if (all_.diverged_at < 0) all_.diverged_at = tally.diverged_at;
        }
        return all_.diverged_at < 0;
    }

    // Task `number` of the phase.
    void work(int number, int thread) {
        const int trained = blocks_of(phase_.trained);
        if (number < trained) return train_block(phase_.trained, order_[number], thread);
        number -= trained;
        if (phase_.needed != kNone) {
            if (number < 2) return number == 0 ? find_needs_in() : find_needs_out();
            number -= 2;
        }
        if (phase_.merged != kNone) {
            if (number < n_threads_) return merge(number);
            number -= n_threads_;
        }
        sample(number);
    }

    void sample(int b) {
        const std::int64_t from = start_of(phase_.sampled) + b * kBlockTokens;
        Room& room = *slot_of(phase_.sampled).rooms[static_cast<std::size_t>(b)];
        kernels_.sample(task_, from, std::min(from + kBlockTokens, task_.n_tokens), &room.block);
    }

    void find_needs_in() {
        Slot& slot = slot_of(phase_.needed);
        slot.in.begin_round();
        for (int b = 0; b < blocks_of(phase_.needed); ++b) {
            rows_in(task_, slot.rooms[static_cast<std::size_t>(b)]->block,
                    [&](auto row, float pull) { slot.in.need(row, b, pull); });
        }
        slot.in.end_round();
    }
    void find_needs_out() {
        Slot& slot = slot_of(phase_.needed);
        slot.out.begin_round();
        for (int b = 0; b < blocks_of(phase_.needed); ++b) {
            rows_out(task_, slot.rooms[static_cast<std::size_t>(b)]->block,
                     [&](auto row, float pull) { slot.out.need(row, b, pull); });
        }
        slot.out.end_round();
    }

    void train_block(std::int64_t round, int b, int thread) {
        auto& own = scratch_[static_cast<std::size_t>(thread)];
        if (!own) own = std::make_unique<AlignedBytes>(kernels_.scratch_bytes(task_));
        Slot& slot = slot_of(round);
        Room& room = *slot.rooms[static_cast<std::size_t>(b)];
        room.block.in = room.in.begin_round(slot.in, b);
        room.block.out = room.out.begin_round(slot.out, b);
        kernels_.copy_rows(task_.vectors, task_.stride, room.block.in);
        kernels_.copy_rows(task_.context, task_.stride, room.block.out);
        room.tally = {};
        kernels_.block(task_, &room.block, &room.tally, own->data);
    }

    void merge(int part) {
        Slot& slot = slot_of(phase_.merged);
        const int n_blocks = blocks_of(phase_.merged);
        const auto merge_matrix = [&](float* matrix, const Needs& needs, BlockRows Word2VecBlock::* rows) {
            BlockRows of_blocks[kRoundBlocks];
            for (int b = 0; b < n_blocks; ++b) of_blocks[b] = slot.rooms[static_cast<std::size_t>(b)]->block.*rows;
            const auto n = static_cast<std::int64_t>(needs.shared().size());
            kernels_.merge_copies(matrix, task_.stride, needs.shared().data(), needs.shares(), n, of_blocks, n_blocks,
                                  part, n_threads_);
        };
        merge_matrix(task_.vectors, slot.in, &Word2VecBlock::in);
        merge_matrix(task_.context, slot.out, &Word2VecBlock::out);
    }

    const Word2Vec& task_;
    const Word2VecKernels& kernels_ = word2vec_kernels();
    std::int64_t first_, n_rounds_;
    int n_threads_;
    std::vector<std::unique_ptr<Slot>> slots_;
    std::vector<std::unique_ptr<AlignedBytes>> scratch_;  // of threads
    Phase phase_;
    int order_[kRoundBlocks];  // in which the phase's blocks are trained
    Word2VecTally all_;
};

}  // namespace

Word2VecTally train_word2vec(const Word2Vec& task, std::int64_t begin, std::int64_t end, int n_threads) {
    const Word2VecKernels& kernels = word2vec_kernels();
    std::vector<Word2VecTally> tallies(static_cast<std::size_t>(n_threads));
    parallel_shares(end - begin, n_threads, [&](long long from, long long to, int thread) {
        // Allocated by the thread that uses it, so that no two threads share a cache line.
        const AlignedBytes scratch(kernels.scratch_bytes(task));
        Word2VecTally tally;
        kernels.range(task, begin + from, begin + to, &tally, scratch.data);
        tallies[static_cast<std::size_t>(thread)] = tally;
    });
    Word2VecTally all;
    for (const Word2VecTally& tally : tallies) {
        all.loss += tally.loss;
        all.examples += tally.examples;
        all.centers += tally.centers;
        if (all.diverged_at < 0) all.diverged_at = tally.diverged_at;
    }
    return all;
}

Word2VecTally train_word2vec_rounds(Word2Vec task, std::int64_t begin, std::int64_t end, int n_threads) {
    task.pool = kPool;
    Rounds rounds(task, begin, end, n_threads);
    return rounds.train();
}

}  // namespace firth
