// Drawing words in proportion to weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tasks/logistic.hpp"

namespace firth {

// cells: (n), weights: (n), non-negative with a positive sum, else std::invalid_argument.
void build_alias_table(AliasCell* cells, const double* weights, std::size_t n);

// out: (rows, stride). The first `columns` of each row are filled with uniform numbers in [-scale, scale), each a
// function of (seed, row, column). The padding does not change. numbers: (rows) a number to use instead of each row's
// own, or null.
void fill_uniform(float* out, std::size_t rows, std::size_t columns, std::size_t stride, const std::int64_t* numbers,
                  float scale, std::uint64_t seed, int n_threads);

}  // namespace firth
