// The k rows nearest to a query by cosine, found exactly.
#pragma once

#include <cstdint>

#include "runtime/dispatch.hpp"

namespace firth {

// A row and its cosine with a query.
struct Candidate {
    float score;
    std::int32_t row;
};

// The row of a candidate that stands for none: worse than any.
constexpr std::int32_t kNoCandidate = INT32_MAX;

// Scratch is sized for queries in multiples of this: the lanes of the widest vector.
constexpr std::int64_t kQueryLanes = 16;

// Q queries against N rows of D = vector_size numbers, `stride` floats apart.
struct TopK {
    const float* matrix;         // (N, stride)
    const float* inverse_norms;  // (N) 1 / |row|; 0 makes every cosine 0, NaN keeps the row out of every result
    const float* queries;        // (Q, D), each of length 1
    std::int64_t stride;
    std::int64_t vector_size;
    std::int64_t n_queries;
    std::int64_t k;
};

// Begins a search: no rows are found yet. heaps: (Q, k); scratch: Q rounded up to kQueryLanes, times D + 1 floats; both
// are then topk_range's.
FIRTH_DECLARE_KERNEL(void, topk_begin, const TopK& task, Candidate* heaps, float* scratch)

// Keeps in each heap the k best of the rows that were there and those of [begin, end), above all before: in no order
// but that a heap has, the worst first; of rows with equal scores the lower one is better.
// A score is one sum over d in ascending order, whatever the batch, so that its bits depend on nothing else.
FIRTH_DECLARE_KERNEL(void, topk_range, const TopK& task, std::int64_t begin, std::int64_t end, Candidate* heaps,
                     float* scratch)

}  // namespace firth
