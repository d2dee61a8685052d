// Training on a stretch of a corpus, shared out over threads.
#pragma once

#include "kernels/word2vec.hpp"

namespace firth {

// Threads race for rows, on purpose: the result hangs on how many there are, and on chance.
Word2VecTally train_word2vec(const Word2Vec& task, std::int64_t begin, std::int64_t end, int n_threads);

// The same bits for any number of threads. The epoch is cut into rounds of kRoundBlocks blocks of kBlockTokens tokens.
// A round's blocks are trained side by side on copies of the rows they touch, from the rows as they were at the round's
// start; then the moves are added, block after block. Trains the rounds whose first token lies in [begin, end).
Word2VecTally train_word2vec_rounds(const Word2Vec& task, std::int64_t begin, std::int64_t end, int n_threads);

}  // namespace firth
