// A sparse matrix times a dense one.
#pragma once

#include <cstdint>

#include "runtime/dispatch.hpp"

namespace firth {

// out = A X. A is (M, N) in compressed rows: the columns of row m, and what stands there, lie at begin[m] up to
// begin[m + 1], in any order.
struct SparseTimesDense {
    const std::int64_t* begin;    // (M + 1)
    const std::int32_t* columns;  // (begin[M]) in [0, N)
    const float* values;          // (begin[M])
    const float* dense;           // X: (N, width), rows dense_stride floats apart
    float* out;                   // (M, width), rows out_stride floats apart; what it held is not read
    std::int64_t n_rows;          // M
    std::int64_t width;
    std::int64_t dense_stride;
    std::int64_t out_stride;
};

// The rows [first, end) of out. A number there is one sum over its row's entries in their order, whatever the share of
// rows, so that its bits depend on nothing else.
FIRTH_DECLARE_KERNEL(void, sparse_rows, const SparseTimesDense& task, std::int64_t first, std::int64_t end)

}  // namespace firth
