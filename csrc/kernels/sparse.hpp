// A sparse matrix times a dense one.
#pragma once

#include <cstdint>

#include "runtime/dispatch.hpp"

namespace firth {

// out = A X, or out = A^T X. A is (M, N) in compressed rows: the columns of row m, and what stands there, lie at
// begin[m] up to begin[m + 1].
struct SparseTimesDense {
    const std::int64_t* begin;    // (M + 1)
    const std::int32_t* columns;  // (begin[M]) in [0, N); for A^T, ascending in each row
    const float* values;          // (begin[M])
    const float* dense;           // X: (N, width), for A^T (M, width); rows dense_stride floats apart
    float* out;                   // (M, width), for A^T (N, width); rows out_stride floats apart
    std::int64_t n_rows;          // M
    std::int64_t width;
    std::int64_t dense_stride;
    std::int64_t out_stride;
};

// The rows [first, end) of out = A X. A number there is one sum over its row's entries in their order, whatever the
// share of rows, so that its bits depend on nothing else.
FIRTH_DECLARE_KERNEL(void, sparse_rows, const SparseTimesDense& task, std::int64_t first, std::int64_t end)

// Adds A^T X to out in its rows [first, end), columns of A: to each number its column's entries one by one from the
// first row on. From zeros, and of A whole or some of its rows after the others, the bits are those of A transposed.
FIRTH_DECLARE_KERNEL(void, sparse_columns, const SparseTimesDense& task, std::int64_t first, std::int64_t end)

}  // namespace firth
