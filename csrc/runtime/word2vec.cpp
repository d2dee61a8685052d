#include "runtime/word2vec.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <vector>

#include "runtime/aligned.hpp"
#include "runtime/threads.hpp"
#include "text/pages.hpp"

namespace firth {
namespace {

// What all blocks of a round move a row by is added to it at once, from gradients taken where it stood before. Beyond
// some 4,800 tokens to a round that overshoots: vectors stay finite and are worth nothing.
constexpr std::int64_t kBlockTokens = 1024;
constexpr std::int64_t kRoundBlocks = 4;
static_assert(kRoundBlocks <= kMostBlocks);

// Room for the copies of one block's rows. Pages that are never written to are never real, so it may be ample.
class Copies {
  public:
    Copies(std::int64_t rows, std::int64_t most, std::int64_t stride)
        : places_(static_cast<std::size_t>(rows), -1),
          rows_(static_cast<std::size_t>(std::min(rows, most)) * sizeof(std::int32_t)),
          copies_(static_cast<std::size_t>(std::min(rows, most) * stride) * sizeof(float)) {}

    RowCopies get() { return {places_.data(), rows_.as<std::int32_t>(), copies_.as<float>(), 0}; }
    void clear(const RowCopies& used) {
        for (std::int64_t i = 0; i < used.n; ++i) places_[static_cast<std::size_t>(used.rows[i])] = -1;
    }

  private:
    std::vector<std::int32_t> places_;
    Pages rows_, copies_;
};

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

Word2VecTally train_word2vec_rounds(const Word2Vec& task, std::int64_t begin, std::int64_t end, int n_threads) {
    constexpr std::int64_t kRound = kBlockTokens * kRoundBlocks;
    // A block touches the rows of its own words and of their neighbours, and what it predicts.
    const std::int64_t words = kBlockTokens + 2 * static_cast<std::int64_t>(task.window);
    const std::int64_t most_in = words * task.longest_bag;
    const std::int64_t most_out = task.noise ? words + task.pool : words * task.longest_path;
    const std::int64_t scratch_bytes = FIRTH_KERNEL(word2vec_scratch_bytes)(task);
    std::vector<Copies> in, out;
    for (std::int64_t b = 0; b < kRoundBlocks; ++b) {
        in.emplace_back(task.n_rows_in, most_in, task.stride);
        out.emplace_back(task.n_rows_out, most_out, task.stride);
    }
    std::vector<std::unique_ptr<AlignedBytes>> scratch(static_cast<std::size_t>(n_threads));
    Word2VecTally all;
    for (std::int64_t round = (begin + kRound - 1) / kRound * kRound; round < end && all.diverged_at < 0;
         round += kRound) {
        const std::int64_t stop = std::min(round + kRound, task.n_tokens);
        const std::int64_t n_blocks = (stop - round + kBlockTokens - 1) / kBlockTokens;
        RowCopies copies_in[kRoundBlocks], copies_out[kRoundBlocks];
        Word2VecTally tallies[kRoundBlocks];
        std::atomic<std::int64_t> next{0};
        parallel(n_threads, [&](int thread) {
            auto& own = scratch[static_cast<std::size_t>(thread)];
            if (!own) own = std::make_unique<AlignedBytes>(scratch_bytes);
            for (std::int64_t b; (b = next++) < n_blocks;) {
                const auto i = static_cast<std::size_t>(b);
                Word2VecCopies copies{in[i].get(), out[i].get()};
                const std::int64_t from = round + b * kBlockTokens;
                FIRTH_KERNEL(word2vec_block)
                (task, from, std::min(from + kBlockTokens, stop), &copies, &tallies[i], own->data);
                copies_in[i] = copies.in;
                copies_out[i] = copies.out;
            }
        });
        for (std::int64_t b = 0; b < n_blocks; ++b) {
            // To a multiple of 2^-20, so that the sum is exact and no cut of the epoch shows in it.
            all.loss += std::nearbyint(tallies[b].loss * 0x1p20) * 0x1p-20;
            all.examples += tallies[b].examples;
            all.centres += tallies[b].centres;
            if (all.diverged_at < 0) all.diverged_at = tallies[b].diverged_at;
        }
        if (all.diverged_at >= 0) break;
        parallel(n_threads, [&](int thread) {
            const int blocks = static_cast<int>(n_blocks);
            FIRTH_KERNEL(merge_copies)(task.vectors, task.stride, copies_in, blocks, thread, n_threads);
            FIRTH_KERNEL(merge_copies)(task.context, task.stride, copies_out, blocks, thread, n_threads);
        });
        for (std::int64_t b = 0; b < n_blocks; ++b) {
            in[static_cast<std::size_t>(b)].clear(copies_in[b]);
            out[static_cast<std::size_t>(b)].clear(copies_out[b]);
        }
    }
    return all;
}

}  // namespace firth
