// The k rows nearest to a query by cosine, found exactly.
#pragma once

#include <cstdint>

namespace firth {

// A row and its cosine with a query.
struct Candidate {
    float score;
    std::int32_t row;
};

// The row of an empty candidate, which is worse than any other.
constexpr std::int32_t kNoCandidate = INT32_MAX;

// Scratch is sized for queries in multiples of this: the lanes of the widest vector.
constexpr std::int64_t kQueryLanes = 16;

// Q queries against N rows of D = vector_size dimensions, `stride` floats apart.
struct TopK {
    const float* matrix;         // (N, stride)
    const float* inverse_norms;  // (N) 1 / |row|; 0 makes every cosine 0, NaN keeps the row out of every result
    const float* queries;        // (Q, D), each of length 1
    std::int64_t stride;
    std::int64_t vector_size;
    std::int64_t n_queries;
    std::int64_t k;
};

}  // namespace firth
