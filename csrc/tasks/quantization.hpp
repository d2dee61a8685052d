// Vector quantization: which of a few centroids each point is nearest to (Jégou, Douze & Schmid 2011, equation 2).
#pragma once

#include <cstdint>

namespace firth {

// N points against K centroids of D = size dimensions.
struct Quantization {
    const float* points;  // (N, stride), D numbers used of each
    std::int64_t stride;
    const float* centroids;  // (K, D), K at most 256
    std::int64_t n_centroids;
    std::int64_t size;
};

// Points taken at once are a multiple of no more than this.
constexpr std::int64_t kPointsAtOnce = 64;

}  // namespace firth
