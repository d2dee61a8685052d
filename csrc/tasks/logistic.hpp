// What all training with the logistic loss shares: word2vec's family and the classifier.
#pragma once

#include <cstdint>

namespace firth {

// Targets of one step at most: each step takes all its targets as they were before it.
constexpr int kTargets = 6;

// Floats between rows are a multiple of this: one register of AVX-512, one cache line.
constexpr int kRowFloats = 16;

// Where several threads train, each has copies of so many of a matrix's rows, those that are written most, and renews a
// copy after so many uses (kernels/hot_rows.hpp). More rows would fill the cache of a core; with four times the uses
// CBOW loses more than 1 % of its loss.
constexpr int kHotRows = 256;
constexpr int kHotUses = 16;

// One cell of an alias table (Walker 1977; construction of Vose 1991): a uniform cell is drawn, then its own word
// with probability (threshold + 1) / 2^32, else its alias. A draw takes two loads, and the table is as long as the
// vocabulary.
struct AliasCell {
    std::uint32_t threshold;
    std::uint32_t alias;
};

}  // namespace firth
