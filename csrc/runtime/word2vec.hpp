// Training on a stretch of a corpus, shared out over threads.
#pragma once

#include "kernels/word2vec.hpp"

namespace firth {

// Threads race for rows, on purpose: the result depends on their number and on chance.
Word2VecTally train_word2vec(const Word2Vec& task, std::int64_t begin, std::int64_t end, int n_threads);

// The same bits for any number of threads. The epoch is cut into rounds of a few blocks of tokens, which are trained
// side by side. A row that only one block needs is trained in place. If several blocks need a row, each trains a copy
// of it, as it was at the round's start; then the row takes a share of the sum of their moves, in the order of the
// blocks. The more often the blocks move a row, the smaller the share, down to the mean. Negatives come from a pool
// drawn for each block, whose size the task need not give. Trains the rounds whose first token lies in [begin, end).
Word2VecTally train_word2vec_rounds(Word2Vec task, std::int64_t begin, std::int64_t end, int n_threads);

}  // namespace firth
