// Vector quantization: which of a few centroids each point is nearest to (Jégou, Douze & Schmid 2011, equation 2).
#pragma once

#include <cstdint>

#include "runtime/dispatch.hpp"

namespace firth {

// N points against K centroids of D = size numbers.
struct Quantization {
    const float* points;  // (N, stride), D numbers used of each
    std::int64_t stride;
    const float* centroids;  // (K, D), K at most 256
    std::int64_t n_centroids;
    std::int64_t size;
};

// Points taken at once are a multiple of no more than this.
constexpr std::int64_t kPointsAtOnce = 64;

// codes: (N) the nearest centroid of each of n points, the lower one of two equally near; a point that is not
// finite has code 0. scratch: (D, kPointsAtOnce).
FIRTH_DECLARE_KERNEL(void, nearest_centroids, const Quantization& task, std::int64_t n, std::uint8_t* codes,
                     float* scratch)

}  // namespace firth
