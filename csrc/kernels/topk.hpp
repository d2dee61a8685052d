// The kernels of tasks/topk.hpp.
#pragma once

#include "runtime/dispatch.hpp"
#include "tasks/topk.hpp"

namespace firth {

struct TopKKernels {
    // Begins a search: no rows are found yet. heaps: (Q, k); scratch: Q rounded up to kQueryLanes, times D + 1 floats;
    // both are then topk_range's.
    void (*begin)(const TopK& task, Candidate* heaps, float* scratch);

    // Keeps in each heap the k best of its rows and of [begin, end), which come after all earlier rows. The worst is at
    // the top of the heap; of rows with equal scores the lower one is better. A score is one sum
    // over d in ascending order, whatever the batch, so that its bits depend on nothing else.
    void (*range)(const TopK& task, std::int64_t begin, std::int64_t end, Candidate* heaps, float* scratch);
};
FIRTH_KERNEL_TABLE(TopKKernels, topk_kernels)

}  // namespace firth
