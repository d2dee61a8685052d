// The word2vec family (Mikolov et al. 2013a, 2013b; Bojanowski et al. 2017), trained by stochastic gradient descent:
// skip-gram and CBOW, with or without subwords, by negative sampling or hierarchical softmax.
#pragma once

#include <cstdint>

#include "tasks/logistic.hpp"

namespace firth {

// Neighbors of one step at most. A wider window takes several steps: with the gradients of hundreds of neighbors
// evaluated at one point, the center's row overshoots, and training diverges at the usual learning rates.
constexpr int kHidden = 16;

// Threads take the text in stretches of so many tokens, which begin at its multiples.
constexpr int kStretchTokens = 4096;

// Neighboring centers whose bags of rows (CBOW, subwords) are trained side by side: each sees the rows as they were
// before the group.
constexpr int kGroup = 4;

// Deterministic training: rounds of blocks of tokens. The blocks of a round do not see each other's moves. Rounds of
// 2,048 tokens are as good as no rounds; of 4,096 they cost a point or two of similarity.
constexpr std::int64_t kBlockTokens = 512;
constexpr std::int64_t kRoundBlocks = 4;
constexpr std::int64_t kRoundTokens = kBlockTokens * kRoundBlocks;
// Negatives that a block draws from: more would touch, and copy, more rows; with half of it quality falls.
constexpr int kPool = 512;

// How far one pair of rows pulls each of them, as a share of the way to where the pair would have it, divided by the
// learning rate: the curvature sigma(z) sigma(-z) |other row|^2 of the loss, averaged over the directions of a row.
// With a fifth of it, for `vectors`, texts of a few symbols overshoot; four times as much costs CBOW 2 % of its loss.
constexpr float kCurvature = 0.05f;

// V words, D = vector_size, T tokens in documents; rows are `stride` floats apart, a multiple of 16, zero beyond D.
struct Word2Vec {
    float* vectors;               // (rows in, stride) a row for each word, or for each character n-gram
    float* context;               // (rows out, stride) a row for each word, or for each inner node of the tree
    const std::int32_t* ids;      // (T) word of each token
    const std::int64_t* offsets;  // (n_documents + 1) where documents start in ids; the last one is T
    const std::uint32_t* keep;    // (V) a token is kept when its 32 random bits are not above this
    const AliasCell* noise;       // (V) the distribution negatives are drawn from, or null: then there is a tree
    // The rows that compose a word: [bag_begins[w], bag_begins[w + 1]); null: its own row.
    const std::int64_t* bag_begins;  // (V + 1)
    const std::int32_t* bag_rows;
    // Hierarchical softmax: the inner nodes on a word's path, and +1 or -1 for the turn taken at each.
    const std::int64_t* path_begins;  // (V + 1)
    const std::int32_t* path_nodes;
    const std::int8_t* path_turns;
    std::int64_t n_tokens;
    std::int64_t n_documents;
    std::int32_t n_words;
    std::int64_t n_rows_in;
    std::int64_t n_rows_out;
    int stride;
    int longest_bag;   // 1 without bags
    int longest_path;  // 0 without a tree

    bool cbow;       // a window's words predict its center; otherwise they are predicted, one by one
    bool cbow_mean;  // by their mean; otherwise by their sum
    int vector_size;
    int window;    // the most words on either side; each center draws its own reach from 1 .. window
    int negative;  // K, negatives for each center
    int epochs;
    int epoch;  // the current one, from 0
    float learning_rate;
    float min_learning_rate;
    std::uint64_t seed;
    int threads;  // that train on these matrices at once
    int pool;     // negatives that each block draws from, where blocks are trained (word2vec_block)
};

// A stretch of tokens after subsampling, with as many neighbors on either side as a window can reach. Each array has
// room for kStretchTokens tokens and both windows.
struct KeptTokens {
    std::int32_t* words;
    std::int32_t* first;  // where in this list the token's document begins, and ends
    std::int32_t* last;
    std::int64_t* positions;  // in the corpus
    int begin, end;           // the centers
    int n;                    // of all
};

constexpr int kMostBlocks = 16;  // side by side
static_assert(kRoundBlocks <= kMostBlocks && kMostBlocks <= 16);

// Rows of a matrix as a block of tokens sees them while other blocks are trained: those that no other block needs lie
// where they always do, those that several need each block has copies of.
struct BlockRows {
    const std::uint32_t* marks;   // (rows of the matrix) the low half, for rows that some block needs: a bit for each
                                  // of the blocks that do
    const std::int32_t* numbers;  // (rows of the matrix) of a row among those that several need, if it is one
    std::int32_t* places;         // (rows that several need) which of the copies is a row's, or -1
    std::int32_t* rows;           // whose copy each is
    float* copies;                // `stride` floats each, aligned to 64
    std::int64_t n;               // copies
};

// A block of tokens that is trained while others are.
struct Word2VecBlock {
    KeptTokens kept;
    std::int32_t* pool;  // (task.pool) negatives drawn for it
    BlockRows in, out;
    // Where the rows of words lie, found once: of the kept tokens, in and out, and of the pool.
    float** kept_in;   // (kept.n)
    float** kept_out;  // (kept.n)
    float** pool_out;  // (task.pool)
};

// The result of training on a range of tokens.
struct Word2VecTally {
    double loss = 0;                // sum over the examples, in nats; a multiple of 2^-20
    std::int64_t examples = 0;      // trained: (word, context word) pairs, or windows of CBOW
    std::int64_t centers = 0;       // tokens that subsampling kept
    std::int64_t diverged_at = -1;  // token at which a dot product was not finite; nothing was written for it
};

}  // namespace firth
