// The kernels of tasks/sparse.hpp.
#pragma once

#include "runtime/dispatch.hpp"
#include "tasks/sparse.hpp"

namespace firth {

struct SparseKernels {
    // The rows [first, end) of out = A X. A number there is one sum over its row's entries in their order, whatever the
    // share of rows, so that its bits depend on nothing else.
    void (*rows)(const SparseTimesDense& task, std::int64_t first, std::int64_t end);

    // Adds A^T X to out in its rows [first, end), columns of A: to each number its column's entries one by one from the
    // first row on. From zeros, and of A whole or some of its rows after the others, the bits are those of A
    // transposed.
    void (*columns)(const SparseTimesDense& task, std::int64_t first, std::int64_t end);
};
FIRTH_KERNEL_TABLE(SparseKernels, sparse_kernels)

}  // namespace firth
