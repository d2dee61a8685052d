// A sparse matrix times a dense one.
#pragma once

#include <cstdint>

namespace firth {

// out = A X, or out = A^T X. A is (M, N) in compressed rows: the columns and values of row m are at
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

}  // namespace firth
