// The kernels of tasks/quantization.hpp.
#pragma once

#include "runtime/dispatch.hpp"
#include "tasks/quantization.hpp"

namespace firth {

struct QuantizationKernels {
    // codes: (N) the nearest centroid of each of n points, the lower one of two equally near; a point that is not
    // finite has code 0. scratch: (D, kPointsAtOnce).
    void (*nearest_centroids)(const Quantization& task, std::int64_t n, std::uint8_t* codes, float* scratch);
};
FIRTH_KERNEL_TABLE(QuantizationKernels, quantization_kernels)

}  // namespace firth
