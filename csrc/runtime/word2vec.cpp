#include "runtime/word2vec.hpp"

#include <new>
#include <vector>

#include "runtime/threads.hpp"

namespace firth {
namespace {

struct AlignedBytes {
    explicit AlignedBytes(std::int64_t n) : data(::operator new(static_cast<std::size_t>(n), std::align_val_t{64})) {}
    ~AlignedBytes() { ::operator delete(data, std::align_val_t{64}); }
    AlignedBytes(const AlignedBytes&) = delete;
    AlignedBytes& operator=(const AlignedBytes&) = delete;
    void* data;
};

}  // namespace

SkipGramTally train_skipgram(const SkipGram& task, std::int64_t begin, std::int64_t end, int n_threads) {
    std::vector<SkipGramTally> tallies(static_cast<std::size_t>(n_threads));
    parallel_shares(end - begin, n_threads, [&](long long from, long long to, int thread) {
        // Allocated by the thread that uses it, so that no two threads share a cache line.
        const AlignedBytes scratch(FIRTH_KERNEL(skipgram_scratch_bytes)(task.window, task.negative));
        SkipGramTally tally;
        FIRTH_KERNEL(skipgram_range)(task, begin + from, begin + to, &tally, scratch.data);
        tallies[static_cast<std::size_t>(thread)] = tally;
    });
    SkipGramTally all;
    for (const SkipGramTally& tally : tallies) {
        all.loss += tally.loss;
        all.examples += tally.examples;
        all.centres += tally.centres;
        if (all.diverged_at < 0) all.diverged_at = tally.diverged_at;
    }
    return all;
}

}  // namespace firth
