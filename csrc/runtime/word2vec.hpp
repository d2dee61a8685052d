// Training on a stretch of a corpus, shared out over threads.
#pragma once

#include "kernels/word2vec.hpp"

namespace firth {

SkipGramTally train_skipgram(const SkipGram& task, std::int64_t begin, std::int64_t end, int n_threads);

}  // namespace firth
