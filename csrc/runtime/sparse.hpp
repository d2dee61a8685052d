// A sparse matrix times a dense one, shared out over threads.
#pragma once

#include "kernels/sparse.hpp"

namespace firth {

void sparse_times_dense(const SparseTimesDense& task, int n_threads);

}  // namespace firth
