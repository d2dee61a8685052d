// Vector quantisation, its points shared out over threads.
#pragma once

#include "kernels/quantization.hpp"

namespace firth {

// codes: (n) the nearest centroid of each point.
void nearest_centroids(const Quantization& task, std::int64_t n, int n_threads, std::uint8_t* codes);

}  // namespace firth
