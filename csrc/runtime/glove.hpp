// The co-occurrence matrix cut into slices that GloVe trains on side by side.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/glove.hpp"
#include "runtime/pages.hpp"

namespace firth {

struct GloveTally {
    double cost = 0;           // summed over the entries: whole numbers...
    double cost_part = 0;      // ...and what is left of them
    std::int64_t entries = 0;  // trained on
    std::int32_t row = -1;     // first of the rows among which a number stopped being finite
};

// Rows and columns are cut into blocks of about equal non-zeros. The entries of a tile, a block of rows by a block of
// columns, are dealt out at random to slices of about kGloveSliceEntries; within a slice rows ascend. An epoch goes
// through all slices in an order of its own, and its result is that of one thread going through them one by one:
// several threads only ever work on slices that share no row and no column with an earlier unfinished one (stratified
// stochastic gradient descent: Gemulla, Nijkamp, Haas & Sismanis 2011).
class GloveTiles {
  public:
    // A CSR matrix of n words by n words. Throws std::invalid_argument if it is none, or holds what has no logarithm.
    template <class Index>
    GloveTiles(const std::int64_t* begins, const Index* columns, const float* values, std::int32_t n,
               std::uint64_t seed, int n_threads);

    std::int64_t size() const { return size_; }  // entries
    std::int32_t n_words() const { return row_cuts_.back(); }
    // Trains on the slices of an epoch whose first entry lies in [begin, end), counted in the epoch's order.
    // The task's rates are filled in here.
    GloveTally train(Glove task, std::int64_t begin, std::int64_t end, std::uint64_t epoch, int n_threads);

  private:
    struct Slice {
        std::int32_t row_block, column_block;
        std::int64_t begin, end;  // entries
    };

    void order(std::uint64_t epoch);

    std::uint64_t seed_;
    std::int64_t size_;
    std::vector<std::int32_t> row_cuts_, column_cuts_;  // (blocks + 1) where blocks begin
    Pages entries_;
    std::vector<Slice> slices_;
    // Of the epoch in hand: slices in their order, and how many entries lie before each.
    std::uint64_t epoch_ = ~std::uint64_t{0};
    std::vector<std::uint32_t> order_;
    std::vector<std::int64_t> begins_;  // (slices + 1)
};

}  // namespace firth
