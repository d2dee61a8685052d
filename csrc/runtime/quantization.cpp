#include "runtime/quantization.hpp"

#include <algorithm>
#include <vector>

#include "runtime/threads.hpp"

namespace firth {

void nearest_centroids(const Quantization& task, std::int64_t n, int n_threads, std::uint8_t* codes) {
    // A thread is worth its start from some hundred thousand multiplications; the result is the same.
    const auto work = static_cast<double>(n) * static_cast<double>(task.n_centroids) * static_cast<double>(task.size);
    n_threads = static_cast<int>(std::clamp(work / 2e5, 1.0, static_cast<double>(n_threads)));
    parallel_shares(n, n_threads, [&](long long begin, long long end, int) {
        std::vector<float> scratch(static_cast<std::size_t>(task.size * kPointsAtOnce));
        FIRTH_KERNEL(nearest_centroids)(task, begin, end, codes, scratch.data());
    });
}

}  // namespace firth
