// Training on a stretch of a corpus, on several threads.
//
// Nothing is allocated here. workspace: aligned to 64 bytes, of as many bytes as the function named ..._bytes returns
// for the same task and number of threads while the same HeldIsa exists.
#pragma once

#include "tasks/word2vec.hpp"

namespace firth {

// Threads race for rows, on purpose: the result depends on their number and on chance.
std::int64_t train_word2vec_bytes(Word2Vec task, std::int64_t begin, std::int64_t end, int n_threads);
Word2VecTally train_word2vec(Word2Vec task, std::int64_t begin, std::int64_t end, int n_threads, void* workspace);

// The same bits for any number of threads. The epoch is cut into rounds of a few blocks of tokens, which are trained
// side by side. A row that only one block needs is trained in place. If several blocks need a row, each trains a copy
// of it, as it was at the round's start; then the row takes a share of the sum of their moves, in the order of the
// blocks. The more often the blocks move a row, the smaller the share, down to the mean. Negatives come from a pool
// drawn for each block, whose size is filled in here. Trains the rounds whose first token lies in [begin, end).
//
// The workspace has room for the most copies that a round can need. A round writes to few of its pages, so memory whose
// untouched pages cost nothing is best.
std::int64_t train_word2vec_rounds_bytes(Word2Vec task, int n_threads);
Word2VecTally train_word2vec_rounds(Word2Vec task, std::int64_t begin, std::int64_t end, int n_threads,
                                    void* workspace);

}  // namespace firth
