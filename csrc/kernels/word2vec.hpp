// The kernels of tasks/word2vec.hpp.
#pragma once

#include "runtime/dispatch.hpp"
#include "tasks/word2vec.hpp"

namespace firth {

struct Word2VecKernels {
    // Bytes of scratch, aligned to 64, that one thread needs.
    std::int64_t (*scratch_bytes)(const Word2Vec& task);

    // Trains on stretches of the centers in [*begin, end), of which several threads take one after the other. Windows
    // reach beyond a stretch, so that the cuts do not change the result. vectors and context are shared without locks,
    // on purpose (Hogwild: Recht et al. 2011).
    void (*range)(const Word2Vec& task, std::int64_t* begin, std::int64_t end, Word2VecTally* tally, void* scratch);

    // The tokens of [begin, end) that subsampling keeps, at most kStretchTokens, and the pool of negatives.
    void (*sample)(const Word2Vec& task, std::int64_t begin, std::int64_t end, Word2VecBlock* block);

    // Fills the copies.
    void (*copy_rows)(const float* matrix, std::int64_t stride, const BlockRows& rows);

    // Trains a block.
    void (*block)(const Word2Vec& task, Word2VecBlock* block, Word2VecTally* tally, void* scratch);

    // Moves the rows that several blocks need by a share of what their copies have moved by, summed; of these rows (n)
    // the ones whose number leaves the remainder `part` when divided by `parts`.
    void (*merge_copies)(float* matrix, std::int64_t stride, const std::int32_t* rows, const float* shares,
                         std::int64_t n, const BlockRows* blocks, int n_blocks, std::int64_t part, std::int64_t parts);
};
FIRTH_KERNEL_TABLE(Word2VecKernels, word2vec_kernels)

}  // namespace firth
