// What all training with the logistic loss shares: word2vec's family and the classifier.
#pragma once

#include <cstdint>

namespace firth {

// Targets of one step at most: each step takes all its targets as they were before it.
constexpr int kTargets = 6;

// Floats between rows are a multiple of this: one register of AVX-512, one cache line.
constexpr int kRowFloats = 16;

// One cell of an alias table (Walker 1977; construction of Vose 1991): a uniform cell is drawn, then its own word
// with probability (threshold + 1) / 2^32, else its alias. A draw takes two loads, and the table is as long as the
// vocabulary.
struct AliasCell {
    std::uint32_t threshold;
    std::uint32_t alias;
};

}  // namespace firth
