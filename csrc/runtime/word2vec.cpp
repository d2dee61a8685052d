#include "runtime/word2vec.hpp"

#include <vector>

#include "runtime/aligned.hpp"
#include "runtime/threads.hpp"

namespace firth {
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

}  // namespace firth
