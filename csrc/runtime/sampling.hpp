// Drawing words in proportion to weights.
#pragma once

#include <cstddef>
#include <cstdint>

namespace firth {

// One cell of an alias table (Walker 1977; construction of Vose 1991): a uniform cell is drawn, then its own word
// with probability (threshold + 1) / 2^32, else its alias. Two loads a draw, and the table is as long as the
// vocabulary.
struct AliasCell {
    std::uint32_t threshold;
    std::uint32_t alias;
};

// cells: (n), weights: (n), non-negative with a positive sum, else std::invalid_argument.
void build_alias_table(AliasCell* cells, const double* weights, std::size_t n);

// out: (rows, stride), the first `columns` of each row filled with uniform numbers in [-scale, scale), each a
// function of (seed, row, column); the padding is left alone. numbers: (rows) what takes the place of the row in
// that, or null.
void fill_uniform(float* out, std::size_t rows, std::size_t columns, std::size_t stride, const std::int64_t* numbers,
                  float scale, std::uint64_t seed, int n_threads);

}  // namespace firth
