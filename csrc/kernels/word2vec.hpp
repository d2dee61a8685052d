// Skip-gram with negative sampling (Mikolov et al. 2013b, equation 4), trained by stochastic gradient descent.
#pragma once

#include <cstdint>

#include "runtime/dispatch.hpp"
#include "runtime/sampling.hpp"

namespace firth {

// V words, D = vector_size, T tokens in documents; rows are `stride` floats apart, a multiple of 16, zero beyond D.
struct SkipGram {
    float* vectors;               // (V, stride) the words' vectors, rows in
    float* context;               // (V, stride) the vectors that predict, rows out
    const std::int32_t* ids;      // (T) word of each token
    const std::int64_t* offsets;  // (n_documents + 1) where documents start in ids; the last one is T
    const std::uint32_t* keep;    // (V) a token is kept when its 32 random bits are not above this
    const AliasCell* noise;       // (V) the distribution negatives are drawn from
    std::int64_t n_tokens;
    std::int64_t n_documents;
    std::int32_t n_words;
    int stride;

    int vector_size;
    int window;    // the most words on either side; each centre draws its own reach from 1 .. window
    int negative;  // K, negatives for each centre
    int epochs;
    int epoch;  // the one in hand, from 0
    float learning_rate;
    float min_learning_rate;
    std::uint64_t seed;
};

// What a range of tokens gave.
struct SkipGramTally {
    double loss = 0;                // sum over the examples, in nats
    std::int64_t examples = 0;      // (word, context word) pairs trained
    std::int64_t centres = 0;       // tokens that subsampling kept
    std::int64_t diverged_at = -1;  // token at which a dot product was not finite; nothing was written for it
};

// Bytes of scratch, aligned to 64, that one thread needs.
FIRTH_DECLARE_KERNEL(std::int64_t, skipgram_scratch_bytes, int window, int negative)

// Trains on the centres in [begin, end); windows reach beyond it, so that the cut does not show in the result.
// vectors and context are shared with other threads without locks, on purpose (Hogwild: Recht et al. 2011).
FIRTH_DECLARE_KERNEL(void, skipgram_range, const SkipGram& task, std::int64_t begin, std::int64_t end,
                     SkipGramTally* tally, void* scratch)

}  // namespace firth
