// A sparse matrix times a dense one, shared out over threads.
#pragma once

#include "kernels/sparse.hpp"

namespace firth {

// out = A X.
void sparse_times_dense(const SparseTimesDense& task, int n_threads);

// out = A^T X; A has n_columns.
void sparse_transposed_times_dense(const SparseTimesDense& task, std::int64_t n_columns, int n_threads);

}  // namespace firth
