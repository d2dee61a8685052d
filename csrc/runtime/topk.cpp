#include "runtime/topk.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/threads.hpp"

namespace firth {
namespace {

constexpr std::int64_t kStep = std::int64_t{1} << 30;  // multiplications between two looks at whether to go on

float inverse_norm(const float* row, std::int64_t n) {
    double sum = 0;
    for (std::int64_t d = 0; d < n; ++d) sum += static_cast<double>(row[d]) * static_cast<double>(row[d]);
    const double norm = std::sqrt(sum);
    if (!(norm <= static_cast<double>(std::numeric_limits<float>::max()))) return std::nanf("");
    const double inverse = 1 / norm;
    return inverse <= static_cast<double>(std::numeric_limits<float>::max()) ? static_cast<float>(inverse) : 0.0f;
}

bool better(const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

// One batch of queries: each thread finds the k best of its share of the rows, then each takes a share of the queries
// and merges.
void topk_batch(const TopK& task, std::int64_t n_rows, int n_threads, std::int64_t* rows, float* scores) {
    const std::int64_t lanes = (task.n_queries + kQueryLanes - 1) / kQueryLanes * kQueryLanes;
    const TopKKernels& kernels = topk_kernels();
    std::vector<std::vector<Candidate>> heaps(static_cast<std::size_t>(n_threads));
    parallel_shares(n_rows, n_threads, [&](long long begin, long long end, int thread) {
        std::vector<Candidate>& mine = heaps[static_cast<std::size_t>(thread)];
        mine.resize(static_cast<std::size_t>(task.n_queries * task.k));
        std::vector<float> scratch(static_cast<std::size_t>(lanes * (task.vector_size + 1)));
        kernels.begin(task, mine.data(), scratch.data());
        const std::int64_t step = std::max<std::int64_t>(1024, kStep / (lanes * task.vector_size));
        in_steps(begin, end, step,
                 [&](long long from, long long to) { kernels.range(task, from, to, mine.data(), scratch.data()); });
    });
    parallel_shares(task.n_queries, n_threads, [&](long long begin, long long end, int) {
        std::vector<Candidate> all(static_cast<std::size_t>(n_threads * task.k));
        for (long long q = begin; q < end; ++q) {
            check_interrupt();
            auto into = all.begin();
            for (const auto& heap : heaps) into = std::copy_n(heap.begin() + q * task.k, task.k, into);
            std::partial_sort(all.begin(), all.begin() + task.k, all.end(), better);
            for (std::int64_t i = 0; i < task.k; ++i) {
                const Candidate& found = all[static_cast<std::size_t>(i)];
                rows[q * task.k + i] = found.row == kNoCandidate ? -1 : found.row;
                scores[q * task.k + i] = found.row == kNoCandidate ? std::nanf("") : found.score;
            }
        }
    });
}

}  // namespace

void inverse_norms(const float* matrix, std::int64_t rows, std::int64_t columns, std::int64_t stride, int n_threads,
                   float* out) {
    parallel_shares(rows, n_threads, [&](long long begin, long long end, int) {
        in_steps(begin, end, 1 << 14, [&](long long from, long long to) {
            for (long long row = from; row < to; ++row) out[row] = inverse_norm(matrix + row * stride, columns);
        });
    });
}

void topk(const TopK& task, std::int64_t n_rows, int n_threads, std::int64_t* rows, float* scores) {
    if (task.k == 0) return;
    const std::int64_t size = task.vector_size;
    // A thread is worth its start from some hundred thousand multiplications; the result is the same.
    const auto work = static_cast<double>(n_rows) * static_cast<double>(size) * static_cast<double>(task.n_queries);
    n_threads = static_cast<int>(std::clamp(work / 2e5, 1.0, static_cast<double>(n_threads)));
    // Batches whose transposed queries stay in cache, and whose heaps stay below 256 MiB.
    const std::int64_t most = std::clamp<std::int64_t>((std::int64_t{1} << 25) / (task.k * n_threads), 1, 1024);
    std::vector<float> units;
    for (std::int64_t first = 0; first < task.n_queries; first += most) {
        TopK batch = task;
        batch.n_queries = std::min(most, task.n_queries - first);
        units.assign(task.queries + first * size, task.queries + (first + batch.n_queries) * size);
        for (std::int64_t q = 0; q < batch.n_queries; ++q) {
            float* const query = units.data() + q * size;
            const float scale = inverse_norm(query, size);
            for (std::int64_t d = 0; d < size; ++d) query[d] *= scale;
        }
        batch.queries = units.data();
        topk_batch(batch, n_rows, n_threads, rows + first * task.k, scores + first * task.k);
    }
}

}  // namespace firth
