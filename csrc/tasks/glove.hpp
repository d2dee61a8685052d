// GloVe (Pennington, Socher & Manning 2014, equation 8) by AdaGrad, with the arithmetic of its published program.
#pragma once

#include <cstdint>

namespace firth {

// Blocks of rows and of columns: they bound how many slices can be trained side by side, to about a third.
constexpr std::int64_t kGloveBlocks = 60;
// Entries of a slice: more cost quality, since neighbors in time should have little in common.
constexpr std::int64_t kGloveSliceEntries = 4096;

// One non-zero of the co-occurrence matrix; row and column count from the start of their blocks.
struct GloveEntry {
    std::uint16_t row;
    std::uint16_t column;
    float value;
};

// A row of either side is twice `stride` floats: the D = vector_size numbers, then (bias, 1) for words and (1, bias)
// for context words, then zeros; and behind them the sums of the squared steps of each, from 1. So one dot product is
// w . c + b + b', a bias is one more coordinate, and all that an entry needs of a word lies in one piece.
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
