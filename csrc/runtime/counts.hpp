// How often words stand near each other: rows of the co-occurrence matrix.
#pragma once

#include <cstdint>
#include <vector>

#include "text/pages.hpp"

namespace firth {

// Weights are whole multiples of 2^-28 and are summed as integers: a sum does not depend on the order, and loses
// nothing, up to 2^36. Rounding 1/d to such a multiple errs by at most d * 2^-29 of it, less than a float's own
// half unit (2^-25) for d up to 16.
constexpr int kWeightBits = 28;

// T tokens in documents, as Corpus has them.
struct CooccurrenceTask {
    const std::int32_t* ids;      // (T)
    const std::int64_t* offsets;  // (n_documents + 1)
    std::int64_t n_tokens;
    std::int64_t n_documents;
    std::int32_t n_words;
    int window;
    const std::uint64_t* left;   // (window) weight of a word d + 1 places before, in units of 2^-kWeightBits, or null
    const std::uint64_t* right;  // (window) the same for words behind
};

// One bit for each token: set where a document begins, and one more at the end.
class DocumentStarts {
  public:
    explicit DocumentStarts(const CooccurrenceTask& task);
    // Tokens of the same document before and behind `position`, but `reach` at the most.
    int before(std::int64_t position, int reach) const;
    int behind(std::int64_t position, int reach) const;

  private:
    std::vector<std::uint64_t> bits_;
};

// Rows [first, first + n) of the matrix, one after the other, columns ascending.
struct CooccurrenceRows {
    std::vector<std::int64_t> lengths;  // (n) non-zeros in each row
    // Pieces that hold whole rows, in order.
    struct Piece {
        Pages columns;  // int32
        Pages values;   // float
        std::int64_t size = 0;
    };
    std::vector<Piece> pieces;
};

// `counts` (n_words) is how often each word occurs. The same bits for any number of threads.
CooccurrenceRows cooccurrence_rows(const CooccurrenceTask& task, const DocumentStarts& starts,
                                   const std::int64_t* counts, std::int32_t first, std::int32_t n, int n_threads);

}  // namespace firth
