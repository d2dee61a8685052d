// GloVe (Pennington, Socher & Manning 2014, equation 8) by AdaGrad, with the arithmetic of its published program.
#pragma once

#include <cstdint>

#include "runtime/dispatch.hpp"

namespace firth {

// One non-zero of the co-occurrence matrix; row and column count from the start of their blocks.
struct GloveEntry {
    std::uint16_t row;
    std::uint16_t column;
    float value;
};

// A row of either side is `stride` floats, a multiple of 16: the D numbers of a vector, then for words (bias, 1), for
// context words (1, bias), then zeros. So one dot product is w . c + b_w + b_c, and a bias is one more coordinate.
// A row of `step` tells what a coordinate's learning rate is and where its gradient is clipped: the published program
// gives biases the rate 1 and no clipping; the constant 1 has the rate 0.
struct GloveTask {
    float* vectors;            // (V, stride) words
    float* context;            // (V, stride) context words
    float* vectors_squares;    // (V, stride) sums of squared steps, from 1
    float* context_squares;    // (V, stride)
    const float* vectors_rate; // (stride)
    const float* context_rate; // (stride)
    const float* clip;         // (stride)
    int stride;
    float x_max;
    float alpha;
};

// Trains on `n` entries whose rows start at first_row and columns at first_column; returns the sum of
// f(x) (w . c + b + b' - log x)^2 / 2. A difference that is not finite ends it: NaN is returned, nothing written for it.
FIRTH_DECLARE_KERNEL(double, glove_slice, const GloveTask& task, const GloveEntry* entries, std::int64_t n,
                     std::int64_t first_row, std::int64_t first_column)

}  // namespace firth
