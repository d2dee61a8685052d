// fastText's classifier of texts (Joulin, Grave, Bojanowski & Mikolov 2017): the mean of the rows of a text's words and
// n-grams predicts its labels, trained by stochastic gradient descent.
#pragma once

#include <cstdint>

#include "tasks/logistic.hpp"

namespace firth {

enum class ClassifierLoss { softmax, negative_sampling, hierarchical_softmax, one_vs_all };

// Places of an epoch whose loss is rounded together: an epoch is cut at multiples of this.
constexpr std::int64_t kCell = 1024;

// What may stand in a bag instead of a row: a row of zeros, which counts in the mean; nothing at all.
constexpr std::int32_t kZeroRow = -1;
constexpr std::int32_t kNoRow = -2;

// N examples, L labels, D = vector_size; rows are `stride` floats apart, a multiple of 16, zero beyond D.
struct Classifier {
    float* rows;                     // (any, stride) of words and n-grams
    float* outputs;                  // (L, stride) a row for each label, or for each inner node of the tree
    const std::int64_t* bag_begins;  // (N + 1) where each example's rows begin in bag_rows
    const std::int32_t* bag_rows;
    const std::int64_t* path_begins;  // (L + 1) the tree, in hierarchical softmax: see Word2Vec
    const std::int32_t* path_nodes;
    const std::int8_t* path_turns;
    int longest_bag;
    int longest_path;  // 0 without a tree
    std::int32_t n_labels;
    int stride;
    int vector_size;
    ClassifierLoss loss;
};

// The additional arguments of training.
struct ClassifierTraining {
    Classifier model;
    const std::int64_t* label_begins;  // (N + 1) where each example's labels begin in labels
    const std::int32_t* labels;
    const float* weights;        // (N) of examples, finite and below 10^6, or null
    const float* label_weights;  // (L) by which they are multiplied for the label trained on, or null
    const AliasCell* noise;      // (L) the distribution negatives are drawn from, or null
    std::int64_t n_examples;
    int negative;  // K
    int epochs;
    int epoch;  // the current one, from 0
    float learning_rate;
    std::uint64_t seed;
};

struct ClassifierTally {
    double loss = 0;                // sum over the examples, in nats, whatever their weight
    std::int64_t examples = 0;      // trained: those that have a row and a label
    std::int64_t diverged_at = -1;  // example at which a dot product was not finite; nothing was written for it
};

}  // namespace firth
