// Training on a stretch of a corpus, shared out over threads.
#pragma once

#include "kernels/word2vec.hpp"

namespace firth {

Word2VecTally train_word2vec(const Word2Vec& task, std::int64_t begin, std::int64_t end, int n_threads);

}  // namespace firth
