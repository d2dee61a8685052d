// How often words occur near each other: rows of the co-occurrence matrix.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/pages.hpp"

namespace firth {

// Weights are multiples of 2^-28 and are summed as integers. So a sum is exact up to 2^36 and does not depend on the
// order. Rounding 1/d to such a multiple has a relative error of at most d * 2^-29, less than half a unit of a float
// (2^-25) for d up to 16.
constexpr int kWeightBits = 28;

// T tokens in documents, as Corpus has them.
struct CooccurrenceTask {
    const std::int32_t* ids;      // (T)
    const std::int64_t* offsets;  // (n_documents + 1)
    std::int64_t n_tokens;
    std::int64_t n_documents;
    std::int32_t n_words;
    int window;
    const std::uint64_t* left;   // (window) weight of a word d + 1 places before, times 2^kWeightBits, or null
    const std::uint64_t* right;  // (window) the same for later words
};

// One bit for each token: set where a document begins, and one more at the end.
class DocumentStarts {
  public:
    explicit DocumentStarts(const CooccurrenceTask& task);
    // How many tokens of the same document are before and after `position`, at most `reach`.
    int before(std::int64_t position, int reach) const;
    int behind(std::int64_t position, int reach) const;

  private:
    std::vector<std::uint64_t> bits_;
};

// Places of the words [first, first + n) in the text, word by word, ascending.
class Places {
  public:
    Places() = default;
    // `counts` (n_words) is how often each word occurs.
    Places(const CooccurrenceTask& task, const std::int64_t* counts, std::int32_t first, std::int32_t n, int n_threads);

    std::int32_t first() const { return first_; }
    std::int32_t end() const { return first_ + static_cast<std::int32_t>(begin_.size()) - 1; }
    std::int64_t count(std::int32_t word) const { return of(word + 1) - of(word); }
    const std::int64_t* begin(std::int32_t word) const { return positions_.as<std::int64_t>() + of(word); }

  private:
    std::int64_t of(std::int32_t word) const { return begin_[static_cast<std::size_t>(word - first_)]; }

    std::int32_t first_ = 0;
    std::vector<std::int64_t> begin_{0};  // (n + 1)
    Pages positions_;                     // int64
};

// A work item: rows [row, end_row), or the places [begin, end) of the only row of a part.
struct CountItem {
    std::int32_t row, end_row;
    std::int64_t begin, end;  // of a part, counted from the row's first place
    std::int32_t parts;       // of the row; 1 if rows are whole
    std::int32_t split;       // number of the row among those that are split
};

// The work items of rows [first, first + n), in the order in which they are begun: of about equal cost, with the places
// of a frequent word split into parts.
std::vector<CountItem> count_items(const CooccurrenceTask& task, const Places& places, std::int32_t first,
                                   std::int32_t n, int n_threads);

// Memory that threads need to count rows.
struct CountSpace;

// Counts rows [first, first + n) and writes them one after the other, columns ascending. `places` has their places.
// lengths: (n) non-zeros of each row. columns and values must have room for the most non-zeros that there can be: for
// each row the smaller of n_words and its places times the words of a window. Returns how many there are. The result
// has the same bits for any number of threads. `space` keeps memory from one call to the next; it may be null.
std::int64_t count_rows(const CooccurrenceTask& task, const DocumentStarts& starts, const Places& places,
                        std::int32_t first, std::int32_t n, std::int64_t* lengths, std::int32_t* columns, float* values,
                        int n_threads, std::shared_ptr<CountSpace>& space);

}  // namespace firth
