// A sparse matrix times a dense one, on several threads.
#pragma once

#include "tasks/sparse.hpp"

namespace firth {

// out = A X.
void sparse_times_dense(const SparseTimesDense& task, int n_threads);

// out = A^T X; A has n_columns. workspace: sparse_transposed_times_dense_bytes(), aligned to 64 bytes.
std::int64_t sparse_transposed_times_dense_bytes();
void sparse_transposed_times_dense(const SparseTimesDense& task, std::int64_t n_columns, int n_threads,
                                   void* workspace);

}  // namespace firth
