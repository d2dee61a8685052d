// The kernels of tasks/glove.hpp.
#pragma once

#include "runtime/dispatch.hpp"
#include "tasks/glove.hpp"

namespace firth {

struct GloveKernels {
    // Trains on `n` entries whose rows start at first_row and columns at first_column; returns the sum of
    // f(x) (w . c + b + b' - log x)^2 / 2. A difference that is not finite ends it: NaN is returned, and nothing is
    // written for its entry.
    double (*slice)(const Glove& task, const GloveEntry* entries, std::int64_t n, std::int64_t first_row,
                    std::int64_t first_column);
};
FIRTH_KERNEL_TABLE(GloveKernels, glove_kernels)

}  // namespace firth
