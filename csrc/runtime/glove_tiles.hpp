// The layout of the co-occurrence matrix for GloVe, and the order of its slices.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/pages.hpp"
#include "tasks/glove.hpp"

namespace firth {

// Rows and columns are cut into blocks of about equal non-zeros. A tile is a block of rows by a block of columns. Its
// entries are dealt at random to slices of about kGloveSliceEntries. In a random order, slices are put into rounds:
// each into the first one in which no slice has its block of rows or of columns. Each epoch goes through the rounds in
// a random order of its own (stratified stochastic gradient descent: Gemulla, Nijkamp, Haas & Sismanis 2011). In a
// random order of slices, only a third as many could be trained side by side.
class GloveTiles {
  public:
    // Copies a CSR matrix of n words by n words. Throws std::invalid_argument if an index lies outside of it or a value
    // has no logarithm.
    template <class Index>
    GloveTiles(const std::int64_t* begins, const Index* columns, const float* values, std::int32_t n,
               std::uint64_t seed, int n_threads);

    std::int64_t size() const { return size_; }  // entries
    std::int32_t n_words() const { return n_words_; }
    // The slices of an epoch whose first entry lies in [begin, end), counted in the epoch's order. They are valid until
    // slices of another epoch are asked for.
    GloveSlices slices(std::int64_t begin, std::int64_t end, std::uint64_t epoch);

  private:
    void make_rounds();
    void order(std::uint64_t epoch);

    std::uint64_t seed_;
    std::int64_t size_;
    std::int32_t n_words_;
    std::int32_t row_blocks_, column_blocks_;
    Pages entries_;
    std::vector<GloveSlice> slices_;              // round by round
    std::vector<std::uint32_t> round_begins_{0};  // (rounds + 1)
    // Of the current epoch: slices in their order, and how many entries lie before each.
    std::uint64_t epoch_ = ~std::uint64_t{0};
    std::vector<std::uint32_t> order_;
    std::vector<std::int64_t> begins_;  // (slices + 1)
};

}  // namespace firth
