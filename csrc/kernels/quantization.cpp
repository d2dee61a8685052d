// The lanes of a vector are different points, and several such vectors stand against one centroid, whose numbers are
// broadcast: the running minimum and its place stay in registers and there is no search across lanes.

#include "kernels/quantization.hpp"

#include "kernels/simd.hpp"

namespace firth::FIRTH_ISA {
namespace {

// Vectors of points at once: enough that one's comparison does not wait for the last one's minimum.
constexpr int kVectors = 4;
constexpr int kPoints = kVectors * kWidth;
static_assert(kPoints <= kPointsAtOnce);

// points: (D, kPoints). Size is D if that is known when this is compiled, or else 0.
template <int Size>
FIRTH_INLINE void nearest(const Quantization& task, const float* points, VecInt (&codes)[kVectors]) {
    const std::int64_t size = Size ? Size : task.size;
    Vec best[kVectors];
    for (int v = 0; v < kVectors; ++v) {
        best[v] = splat(__builtin_inff());
        codes[v] = VecInt{};
    }
    for (std::int64_t c = 0; c < task.n_centroids; ++c) {
        const float* const centroid = task.centroids + c * size;
        Vec distance[kVectors] = {};
        for (std::int64_t d = 0; d < size; ++d) {
            for (int v = 0; v < kVectors; ++v) {
                const Vec difference = load(points + d * kPoints + v * kWidth) - centroid[d];
                distance[v] += difference * difference;
            }
        }
        for (int v = 0; v < kVectors; ++v) {
            const VecInt nearer = distance[v] < best[v];
            codes[v] = (nearer & static_cast<std::int32_t>(c)) | (~nearer & codes[v]);
            best[v] = min(distance[v], best[v]);
        }
    }
}

void nearest_centroids(const Quantization& task, std::int64_t n, std::uint8_t* codes, float* scratch) {
    for (std::int64_t first = 0; first < n; first += kPoints) {
        const int left = static_cast<int>(n - first < kPoints ? n - first : kPoints);
        for (int i = 0; i < kPoints; ++i) {  // past the end: the last point again, and not looked at
            const float* const point = task.points + (first + (i < left ? i : left - 1)) * task.stride;
            for (std::int64_t d = 0; d < task.size; ++d) scratch[d * kPoints + i] = point[d];
        }
        VecInt found[kVectors];
        switch (task.size) {
            case 1:
                nearest<1>(task, scratch, found);
                break;
            case 2:
                nearest<2>(task, scratch, found);
                break;
            case 4:
                nearest<4>(task, scratch, found);
                break;
            default:
                nearest<0>(task, scratch, found);
        }
        for (int i = 0; i < left; ++i) {
            codes[first + i] = static_cast<std::uint8_t>(found[i / kWidth][i % kWidth]);
        }
    }
}

}  // namespace

const QuantizationKernels quantization_kernels{
    .nearest_centroids = nearest_centroids,
};

}  // namespace firth::FIRTH_ISA
