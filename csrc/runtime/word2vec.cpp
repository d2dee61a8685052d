#include "runtime/word2vec.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <vector>

#include "runtime/aligned.hpp"
#include "runtime/pages.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

// What all blocks of a round move a row by is added to it at once, from gradients taken where it stood before. Beyond
// some 4,800 tokens to a round that overshoots: vectors stay finite and are worth nothing.
constexpr std::int64_t kBlockTokens = 1024;
constexpr std::int64_t kRoundBlocks = 4;
constexpr int kPool = 512;  // negatives that a block draws from: more would touch, and copy, more rows
static_assert(kRoundBlocks <= kMostBlocks && kMostBlocks <= 32);

// Which rows of a matrix a round's blocks need, and which of them several do.
class Needs {
  public:
    explicit Needs(std::int64_t rows) : marks_(static_cast<std::size_t>(rows)) {}

    void begin_round() {
        ++round_;
        shared_.clear();
        blocks_.clear();
    }
    void need(std::int32_t row, int block) {
        std::uint64_t& mark = marks_[static_cast<std::size_t>(row)];
        const auto one = static_cast<std::uint32_t>(mark);
        if (mark >> 32 != round_) {
            mark = round_ << 32 | static_cast<std::uint64_t>(block);
        } else if (one >= kMostBlocks) {
            blocks_[one - kMostBlocks] |= 1u << block;
        } else if (one != static_cast<std::uint32_t>(block)) {
            mark = round_ << 32 | (kMostBlocks + shared_.size());
            shared_.push_back(row);
            blocks_.push_back(1u << one | 1u << block);
        }
    }
    const std::uint64_t* marks() const { return marks_.data(); }
    const std::vector<std::int32_t>& shared() const { return shared_; }
    bool needs(std::size_t shared, int block) const { return (blocks_[shared] >> block & 1) != 0; }

  private:
    std::uint64_t round_ = 0;
    std::vector<std::uint64_t> marks_;  // the round, then a block or, above kMostBlocks, a place in shared_
    std::vector<std::int32_t> shared_;
    std::vector<std::uint32_t> blocks_;  // a bit for each block that needs them
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
        BlockRows own{needs.marks(), places_.data(), rows_.as<std::int32_t>(), copies_.as<float>(), 0};
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

// Rows of `vectors` that a block's words are made of.
template <class Use>
void rows_in(const Word2Vec& task, const Word2VecBlock& block, Use&& use) {
    for (int i = 0; i < block.kept.n; ++i) {
        const std::int32_t word = block.kept.words[i];
        if (task.bag_begins == nullptr) {
            use(word);
            continue;
        }
        for (std::int64_t r = task.bag_begins[word]; r < task.bag_begins[word + 1]; ++r) use(task.bag_rows[r]);
    }
}

// Rows of `context` that they are compared with.
template <class Use>
void rows_out(const Word2Vec& task, const Word2VecBlock& block, Use&& use) {
    for (int i = 0; i < block.kept.n; ++i) {
        const std::int32_t word = block.kept.words[i];
        if (task.noise != nullptr) {
            use(word);
            continue;
        }
        for (std::int64_t n = task.path_begins[word]; n < task.path_begins[word + 1]; ++n) use(task.path_nodes[n]);
    }
    if (task.noise == nullptr) return;
    for (int i = 0; i < task.pool; ++i) use(block.pool[i]);
}

}  // namespace

Word2VecTally train_word2vec(const Word2Vec& task, std::int64_t begin, std::int64_t end, int n_threads) {
    std::vector<Word2VecTally> tallies(static_cast<std::size_t>(n_threads));
    parallel_shares(end - begin, n_threads, [&](long long from, long long to, int thread) {
        // Allocated by the thread that uses it, so that no two threads share a cache line.
        const AlignedBytes scratch(FIRTH_KERNEL(word2vec_scratch_bytes)(task));
        Word2VecTally tally;
        FIRTH_KERNEL(word2vec_range)(task, begin + from, begin + to, &tally, scratch.data);
        tallies[static_cast<std::size_t>(thread)] = tally;
    });
    Word2VecTally all;
    for (const Word2VecTally& tally : tallies) {
        all.loss += tally.loss;
        all.examples += tally.examples;
        all.centres += tally.centres;
        if (all.diverged_at < 0) all.diverged_at = tally.diverged_at;
    }
    return all;
}

Word2VecTally train_word2vec_rounds(Word2Vec task, std::int64_t begin, std::int64_t end, int n_threads) {
    task.pool = kPool;
    constexpr std::int64_t kRound = kBlockTokens * kRoundBlocks;
    const std::int64_t tokens = kBlockTokens + 2 * static_cast<std::int64_t>(task.window) + 1;
    const std::int64_t most_in = tokens * task.longest_bag;
    const std::int64_t most_out = task.noise ? tokens + task.pool : tokens * task.longest_path;
    const std::int64_t scratch_bytes = FIRTH_KERNEL(word2vec_scratch_bytes)(task);
    std::vector<Copies> in, out;
    std::vector<std::vector<std::int32_t>> words(kRoundBlocks), pools(kRoundBlocks);
    std::vector<std::vector<std::int64_t>> positions(kRoundBlocks);
    std::vector<std::vector<float*>> pointers(kRoundBlocks);
    for (std::size_t b = 0; b < kRoundBlocks; ++b) {
        in.emplace_back(std::min(most_in, task.n_rows_in), task.stride);
        out.emplace_back(std::min(most_out, task.n_rows_out), task.stride);
        words[b].resize(static_cast<std::size_t>(3 * tokens));
        positions[b].resize(static_cast<std::size_t>(tokens));
        pools[b].resize(static_cast<std::size_t>(task.pool));
        pointers[b].resize(static_cast<std::size_t>(2 * tokens + task.pool));
    }
    Needs needs_in(task.n_rows_in), needs_out(task.n_rows_out);
    std::vector<std::unique_ptr<AlignedBytes>> scratch(static_cast<std::size_t>(n_threads));
    Word2VecTally all;
    for (std::int64_t round = (begin + kRound - 1) / kRound * kRound; round < end; round += kRound) {
        const std::int64_t stop = std::min(round + kRound, task.n_tokens);
        const auto n_blocks = static_cast<int>((stop - round + kBlockTokens - 1) / kBlockTokens);
        Word2VecBlock blocks[kRoundBlocks];
        BlockRows rows_of_in[kRoundBlocks], rows_of_out[kRoundBlocks];
        Word2VecTally tallies[kRoundBlocks];
        const auto each_block = [&](auto&& work) {
            std::atomic<int> next{0};
            parallel(n_threads, [&](int thread) {
                for (int b; (b = next++) < n_blocks;) work(static_cast<std::size_t>(b), thread);
            });
        };
        each_block([&](std::size_t b, int) {
            std::int32_t* const word = words[b].data();
            blocks[b] = {{word, word + tokens, word + 2 * tokens, positions[b].data(), 0, 0, 0},
                         pools[b].data(),
                         {},
                         {},
                         pointers[b].data(),
                         pointers[b].data() + tokens,
                         pointers[b].data() + 2 * tokens};
            const std::int64_t from = round + static_cast<std::int64_t>(b) * kBlockTokens;
            FIRTH_KERNEL(word2vec_sample)(task, from, std::min(from + kBlockTokens, stop), &blocks[b]);
        });
        parallel(std::min(n_threads, 2), [&](int thread) {
            const bool both = n_threads == 1;
            if (both || thread == 0) needs_in.begin_round();
            if (both || thread == 1) needs_out.begin_round();
            for (int b = 0; b < n_blocks; ++b) {
                if (both || thread == 0) rows_in(task, blocks[b], [&](auto row) { needs_in.need(row, b); });
                if (both || thread == 1) rows_out(task, blocks[b], [&](auto row) { needs_out.need(row, b); });
            }
        });
        each_block([&](std::size_t b, int thread) {
            auto& own = scratch[static_cast<std::size_t>(thread)];
            if (!own) own = std::make_unique<AlignedBytes>(scratch_bytes);
            Word2VecBlock& block = blocks[b];
            block.in = in[b].begin_round(needs_in, static_cast<int>(b));
            block.out = out[b].begin_round(needs_out, static_cast<int>(b));
            FIRTH_KERNEL(copy_rows)(task.vectors, task.stride, block.in);
            FIRTH_KERNEL(copy_rows)(task.context, task.stride, block.out);
            FIRTH_KERNEL(word2vec_block)(task, &block, &tallies[b], own->data);
            rows_of_in[b] = block.in;
            rows_of_out[b] = block.out;
        });
        for (int b = 0; b < n_blocks; ++b) {
            // To a multiple of 2^-20, so that the sum is exact and no cut of the epoch shows in it.
            all.loss += std::nearbyint(tallies[b].loss * 0x1p20) * 0x1p-20;
            all.examples += tallies[b].examples;
            all.centres += tallies[b].centres;
            if (all.diverged_at < 0) all.diverged_at = tallies[b].diverged_at;
        }
        if (all.diverged_at >= 0) break;
        parallel(n_threads, [&](int thread) {
            const auto merge = [&](float* matrix, const Needs& needs, const BlockRows* rows) {
                const auto n = static_cast<std::int64_t>(needs.shared().size());
                FIRTH_KERNEL(merge_copies)
                (matrix, task.stride, needs.shared().data(), n, rows, n_blocks, thread, n_threads);
            };
            merge(task.vectors, needs_in, rows_of_in);
            merge(task.context, needs_out, rows_of_out);
        });
    }
    return all;
}

}  // namespace firth
