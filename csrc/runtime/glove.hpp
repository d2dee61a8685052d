// Trains GloVe on a team of threads.
#pragma once

#include "kernels/glove.hpp"

namespace firth {

struct GloveTally {
    double cost = 0;           // whole numbers of the cost, summed over the entries
    double cost_part = 0;      // the rest of it
    std::int64_t entries = 0;  // trained
    std::int32_t row = -1;     // first of the rows among which a number stopped being finite
};

// The result does not depend on the number of threads. The task's rates are filled in here. workspace: aligned to 64
// bytes, of as many bytes as train_glove_bytes returns.
std::int64_t train_glove_bytes(const Glove& task, const GloveSlices& slices);
GloveTally train_glove(Glove task, const GloveSlices& slices, int n_threads, void* workspace);

}  // namespace firth
