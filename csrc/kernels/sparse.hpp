// The kernels of tasks/sparse.hpp.
#pragma once

#include "runtime/dispatch.hpp"
#include "tasks/sparse.hpp"

namespace firth {

struct SparseKernels {
    // The rows [first, end) of out = A X. A number there is one sum over its row's entries in their order, whatever the
    // share of rows, so that its bits depend on nothing else.
    void (*rows)(const SparseTimesDense& task, std::int64_t first, std::int64_t end);

    // Adds A^T X to out in its rows [first, end), columns of A: each number adds its column's entries one by one in the
    // order of A's rows. If out begins with zeros, the bits are those of the product with a transposed copy of A, also
    // if A is passed in several ranges of rows, in order.
    void (*columns)(const SparseTimesDense& task, std::int64_t first, std::int64_t end);
};
FIRTH_KERNEL_TABLE(SparseKernels, sparse_kernels)

}  // namespace firth
