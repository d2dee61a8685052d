#include "runtime/word2vec.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "kernels/word2vec.hpp"
#include "runtime/phases.hpp"
#include "runtime/racing.hpp"

namespace firth {
namespace {

// The share of its blocks' summed moves that a row takes. Each block moves its own copy of the row and does not see the
// others' moves. If a row is pulled a few times only, the sum is what one thread would do. If it is pulled
// often, it comes to rest within each block: the sum would carry it n_blocks times too far, and training would diverge,
// so it takes the mean. In between, a pull x closes x / (1 + x) of the way, as an implicit gradient step does, and
// pulls add up: all blocks together close pull / (1 + pull), each of them alone (pull / n) / (1 + pull / n).
float joint_share(float pull, int n_blocks) { return (1 + pull / static_cast<float>(n_blocks)) / (1 + pull); }

// Which rows of a matrix a round's blocks need, and which of them several do.
class Needs {
  public:
    // A round needs rows at most `most` times.
    Needs(Arena& arena, std::int64_t rows, std::int64_t most)
        : n_rows_(rows),
          marks_(arena.take<std::uint32_t>(rows)),
          pulls_(arena.take<float>(rows)),
          numbers_(arena.take<std::int32_t>(rows)),
          shared_(arena.take<std::int32_t>(std::min(rows, most) + 1)),
          shares_(arena.take<float>(std::min(rows, most) + 1)) {}

    void clear() { std::fill_n(marks_, n_rows_, 0u); }
    void begin_round() {
        n_shared_ = 0;
        if (++round_ <= 0xFFFF) return;
        clear();
        round_ = 1;
    }
    // The block needs the row, and pulls it by `pull`. There is no branch, since it is unpredictable whether a row is
    // needed for the first time.
    void need(std::int32_t row, int block, float pull) {
        std::uint32_t& mark = marks_[row];
        const std::uint32_t blocks = mark >> 16 == round_ ? mark & 0xFFFF : 0, own = 1u << block;
        float& pulls = pulls_[row];
        pulls = pull + (blocks != 0 ? pulls : 0);
        mark = round_ << 16 | blocks | own;
        shared_[n_shared_] = row;
        n_shared_ += blocks != 0 && (blocks & (blocks - 1)) == 0 && blocks != own;
    }
    void end_round() {
        for (std::int64_t i = 0; i < n_shared_; ++i) {
            const std::int32_t row = shared_[i];
            numbers_[row] = static_cast<std::int32_t>(i);
            shares_[i] = joint_share(pulls_[row], std::popcount(marks_[row] & 0xFFFF));
        }
    }
    const std::uint32_t* marks() const { return marks_; }
    const std::int32_t* numbers() const { return numbers_; }
    // The rows that several blocks need, what share of its moves each takes, and whether a block needs one of them.
    std::int64_t n_shared() const { return n_shared_; }
    const std::int32_t* shared() const { return shared_; }
    const float* shares() const { return shares_; }
    bool needs(std::int64_t shared, int block) const { return (marks_[shared_[shared]] >> block & 1) != 0; }

  private:
    std::uint32_t round_ = 0;
    std::int64_t n_rows_;
    std::uint32_t* marks_;   // the last round that needed a row, above a bit for each of its blocks
    float* pulls_;           // of the round's blocks, summed
    std::int32_t* numbers_;  // of a row among the shared ones, if it is one
    std::int32_t* shared_;   // with room for one that is not
    float* shares_;
    std::int64_t n_shared_ = 0;
};

// Room for the copies of one block's rows.
class Copies {
  public:
    Copies(Arena& arena, std::int64_t most, std::int64_t stride, std::int64_t most_shared)
        : places_(arena.take<std::int32_t>(most_shared)),
          rows_(arena.take<std::int32_t>(most)),
          copies_(arena.take<float>(most * stride)) {}

    // Names the rows that block number `block` has to copy.
    BlockRows begin_round(const Needs& needs, int block) const {
        BlockRows own{needs.marks(), needs.numbers(), places_, rows_, copies_, 0};
        for (std::int64_t i = 0; i < needs.n_shared(); ++i) {
            places_[i] = needs.needs(i, block) ? static_cast<std::int32_t>(own.n) : -1;
            if (places_[i] >= 0) own.rows[own.n++] = needs.shared()[i];
        }
        return own;
    }

  private:
    std::int32_t* places_;
    std::int32_t* rows_;
    float* copies_;
};

// Tokens of a block with both its windows, and how often at most it needs rows.
std::int64_t most_tokens(const Word2Vec& task) { return kBlockTokens + 2 * static_cast<std::int64_t>(task.window) + 1; }
std::int64_t most_in(const Word2Vec& task) { return most_tokens(task) * task.longest_bag; }
std::int64_t most_out(const Word2Vec& task) {
    return task.noise ? most_tokens(task) + task.pool : most_tokens(task) * task.longest_path;
}

// Calls use(row, pull) for each of the rows of `vectors` that compose a block's words. A word's window holds window + 1
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

// Room for a block's tokens and its copies.
struct Room {
    Word2VecBlock block{};
    Word2VecTally tally;
    Copies in, out;

    Room(Arena& arena, const Word2Vec& task)
        : in(copies(arena, task, most_in(task), task.n_rows_in)),
          out(copies(arena, task, most_out(task), task.n_rows_out)) {
        const std::int64_t tokens = most_tokens(task);
        block.kept.words = arena.take<std::int32_t>(tokens);
        block.kept.first = arena.take<std::int32_t>(tokens);
        block.kept.last = arena.take<std::int32_t>(tokens);
        block.kept.positions = arena.take<std::int64_t>(tokens);
        block.pool = arena.take<std::int32_t>(task.pool);
        block.kept_in = arena.take<float*>(tokens);
        block.kept_out = arena.take<float*>(tokens);
        block.pool_out = arena.take<float*>(task.pool);
    }

  private:
    static Copies copies(Arena& arena, const Word2Vec& task, std::int64_t most, std::int64_t rows) {
        return {arena, std::min(most, rows), task.stride, std::min(kRoundBlocks * most, rows)};
    }
};

// Room for one round.
struct Slot {
    Needs in, out;
    Room rooms[kRoundBlocks];

    Slot(Arena& arena, const Word2Vec& task)
        : in(arena, task.n_rows_in, kRoundBlocks * most_in(task)),
          out(arena, task.n_rows_out, kRoundBlocks * most_out(task)),
          rooms{{arena, task}, {arena, task}, {arena, task}, {arena, task}} {
        static_assert(kRoundBlocks == 4);
    }
};

struct RoundsSpace {
    Slot slots[2];
    ThreadScratch scratch;

    RoundsSpace(Arena& arena, const Word2Vec& task, int n_threads)
        : slots{{arena, task}, {arena, task}}, scratch(arena, word2vec_kernels().scratch_bytes(task), n_threads) {}
};

void add(const Word2VecTally& tally, Word2VecTally& all) {
    all.loss += tally.loss;
    all.examples += tally.examples;
    all.centers += tally.centers;
    if (all.diverged_at < 0) all.diverged_at = tally.diverged_at;
}

// The threads that find a stretch to train on.
int busy_threads(std::int64_t begin, std::int64_t end, int n_threads) {
    const std::int64_t stretches = (end - begin + kStretchTokens - 1) / kStretchTokens;
    return static_cast<int>(std::clamp<std::int64_t>(stretches, 1, n_threads));
}

// Rounds of blocks, and which of their tasks run side by side. The rows that a round needs are found before the
// previous round is trained. So a round has two phases: it is trained while the next round's needs are found, and
// merged while the round after that is sampled. Hence there are two slots.
class Rounds {
  public:
    Rounds(const Word2Vec& task, std::int64_t begin, std::int64_t end, int n_threads, Arena arena)
        : task_(task),
          first_((begin + kRoundTokens - 1) / kRoundTokens * kRoundTokens),
          n_rounds_(std::max<std::int64_t>(0, (end - first_ + kRoundTokens - 1) / kRoundTokens)),
          n_threads_(n_threads),
          space_(arena, task, n_threads) {}

    Word2VecTally train() {
        if (n_rounds_ == 0) return {};
        for (Slot& slot : space_.slots) {
            slot.in.clear();
            slot.out.clear();
        }
        Phases phases(begin(Phase{.sampled = 0}));
        parallel(n_threads_, [&](int thread) {
            phases.run([&](int number) { work(number, thread); }, [&] { return begin(following()); });
        });
        return all_;
    }

  private:
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
    Slot& slot_of(std::int64_t round) { return space_.slots[round % 2]; }

    // Begins a phase. Returns the number of its tasks.
    int begin(const Phase& phase) {
        phase_ = phase;
        // Long blocks first, so that short ones balance the load at the end.
        const int trained = blocks_of(phase.trained);
        const auto centers = [&](int b) {
            const KeptTokens& kept = slot_of(phase.trained).rooms[b].block.kept;
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
        for (int b = 0; b < blocks_of(round); ++b) add(slot_of(round).rooms[b].tally, all_);
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
        Room& room = slot_of(phase_.sampled).rooms[b];
        kernels_.sample(task_, from, std::min(from + kBlockTokens, task_.n_tokens), &room.block);
    }

    void find_needs_in() {
        Slot& slot = slot_of(phase_.needed);
        slot.in.begin_round();
        for (int b = 0; b < blocks_of(phase_.needed); ++b) {
            rows_in(task_, slot.rooms[b].block, [&](auto row, float pull) { slot.in.need(row, b, pull); });
        }
        slot.in.end_round();
    }
    void find_needs_out() {
        Slot& slot = slot_of(phase_.needed);
        slot.out.begin_round();
        for (int b = 0; b < blocks_of(phase_.needed); ++b) {
            rows_out(task_, slot.rooms[b].block, [&](auto row, float pull) { slot.out.need(row, b, pull); });
        }
        slot.out.end_round();
    }

    void train_block(std::int64_t round, int b, int thread) {
        Slot& slot = slot_of(round);
        Room& room = slot.rooms[b];
        room.block.in = room.in.begin_round(slot.in, b);
        room.block.out = room.out.begin_round(slot.out, b);
        kernels_.copy_rows(task_.vectors, task_.stride, room.block.in);
        kernels_.copy_rows(task_.context, task_.stride, room.block.out);
        room.tally = {};
        kernels_.block(task_, &room.block, &room.tally, space_.scratch.of(thread));
    }

    void merge(int part) {
        Slot& slot = slot_of(phase_.merged);
        const int n_blocks = blocks_of(phase_.merged);
        const auto merge_matrix = [&](float* matrix, const Needs& needs, BlockRows Word2VecBlock::* rows) {
            BlockRows of_blocks[kRoundBlocks];
            for (int b = 0; b < n_blocks; ++b) of_blocks[b] = slot.rooms[b].block.*rows;
            kernels_.merge_copies(matrix, task_.stride, needs.shared(), needs.shares(), needs.n_shared(), of_blocks,
                                  n_blocks, part, n_threads_);
        };
        merge_matrix(task_.vectors, slot.in, &Word2VecBlock::in);
        merge_matrix(task_.context, slot.out, &Word2VecBlock::out);
    }

    const Word2Vec& task_;
    const Word2VecKernels& kernels_ = word2vec_kernels();
    std::int64_t first_, n_rounds_;
    int n_threads_;
    RoundsSpace space_;
    Phase phase_;
    int order_[kRoundBlocks];  // in which the phase's blocks are trained
    Word2VecTally all_;
};

}  // namespace

std::int64_t train_word2vec_bytes(Word2Vec task, std::int64_t begin, std::int64_t end, int n_threads) {
    task.threads = busy_threads(begin, end, n_threads);
    return racing_bytes<Word2VecTally>(word2vec_kernels().scratch_bytes(task), task.threads);
}

Word2VecTally train_word2vec(Word2Vec task, std::int64_t begin, std::int64_t end, int n_threads, void* workspace) {
    const Word2VecKernels& kernels = word2vec_kernels();
    task.threads = busy_threads(begin, end, n_threads);
    return train_racing<Word2VecTally>(
        kernels.scratch_bytes(task), task.threads, workspace,
        [&](int, Word2VecTally* tally, void* scratch) { kernels.range(task, &begin, end, tally, scratch); }, add);
}

std::int64_t train_word2vec_rounds_bytes(Word2Vec task, int n_threads) {
    task.pool = kPool;
    Arena arena{nullptr};
    RoundsSpace(arena, task, n_threads);
    return arena.used;
}

Word2VecTally train_word2vec_rounds(Word2Vec task, std::int64_t begin, std::int64_t end, int n_threads,
                                    void* workspace) {
    task.pool = kPool;
    return Rounds(task, begin, end, n_threads, {static_cast<char*>(workspace)}).train();
}

}  // namespace firth
