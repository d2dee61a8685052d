// GloVe (Pennington, Socher & Manning 2014, equation 8) by AdaGrad, with the arithmetic of its published program.
#pragma once

#include <cstdint>

namespace firth {

// Rows and columns are cut into so many blocks that a tile has about kGloveTileEntries entries on average, within
// limits. So the number depends on the matrix alone. Up to as many slices as there are blocks can be trained side by
// side.
constexpr std::int64_t kGloveTileEntries = 2048;
constexpr std::int64_t kGloveLeastBlocks = 60, kGloveMostBlocks = 256;
// Entries of a slice. Larger slices cost quality, since consecutive steps should have little in common.
constexpr std::int64_t kGloveSliceEntries = 4096;

// One non-zero of the co-occurrence matrix; row and column count from the start of their blocks.
struct GloveEntry {
    std::uint16_t row;
    std::uint16_t column;
    float value;
};

// Entries [begin, end) of one block of rows and one block of columns, rows ascending.
struct GloveSlice {
    std::int32_t row_block, column_block;
    std::int32_t first_row, first_column;  // of the blocks
    std::int64_t begin, end;
};

// N slices in the order in which they are trained. An executor may train several at the same time, if each starts after
// all earlier ones that share its block of rows or its block of columns: then the result is that of one after the
// other.
struct GloveSlices {
    const GloveEntry* entries;
    const GloveSlice* slices;
    const std::uint32_t* order;  // (N) numbers of slices
    std::int64_t n;
    std::int32_t row_blocks, column_blocks;

    const GloveSlice& operator[](std::int64_t i) const { return slices[order[i]]; }
};

// A row of either side is twice `stride` floats: the D = vector_size numbers, then (bias, 1) for words and (1, bias)
// for context words, then zeros. The sums of the squared steps of each follow, starting at 1. So one dot product is
// w . c + b + b', a bias is one more coordinate, and all that an entry needs of a word is contiguous.
struct Glove {
    float* words;        // (V, 2, stride)
    float* contexts;     // (V, 2, stride)
    const float* rates;  // (3, stride) for each coordinate: the learning rate in words, in contexts, and the clipping;
                         // the published program gives biases the rate 1 and no clipping; the constant 1 has rate 0
    int stride;          // a multiple of 16, at least D + 2

    int vector_size;
    float x_max;
    float alpha;
    float learning_rate;
    float clip_value;
};

}  // namespace firth
