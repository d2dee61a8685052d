#include "runtime/topk.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/topk.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

constexpr std::int64_t kStep = std::int64_t{1} << 25;  // multiplications for which a thread takes rows at once

std::int64_t lanes_of(std::int64_t n_queries) { return (n_queries + kQueryLanes - 1) / kQueryLanes * kQueryLanes; }

// A thread is worth its start from some hundred thousand multiplications. The result is the same.
int threads_for(const TopK& task, std::int64_t n_rows, int n_threads) {
    const double work =
        static_cast<double>(n_rows) * static_cast<double>(task.vector_size) * static_cast<double>(task.n_queries);
    return static_cast<int>(std::clamp(work / 2e5, 1.0, static_cast<double>(n_threads)));
}

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

// Memory of one thread: its k best rows of each query, the kernel's scratch, and the best rows of all threads.
struct Part {
    Candidate* heaps;     // (batch, k)
    float* scratch;       // (lanes, D + 1)
    Candidate* gathered;  // (threads, k)

    Part(Arena& arena, const TopK& task, std::int64_t batch, int n_threads)
        : heaps(arena.take<Candidate>(batch * task.k)),
          scratch(arena.take<float>(lanes_of(batch) * (task.vector_size + 1))),
          gathered(arena.take<Candidate>(n_threads * task.k)) {}
};

struct Space {
    int n_threads;
    std::int64_t batch;  // queries at once
    float* units;        // (batch, D) the queries, each of length 1
    ThreadScratch parts;

    Space(Arena& arena, const TopK& task, std::int64_t n_rows, int most_threads)
        : n_threads(threads_for(task, n_rows, most_threads)),
          // The transposed queries of a batch stay in cache, and its heaps below 256 MiB.
          batch(std::min(task.n_queries,
                         std::clamp<std::int64_t>((std::int64_t{1} << 25) / (task.k * n_threads), 1, 1024))),
          units(arena.take<float>(batch * task.vector_size)),
          parts(arena, bytes_of_part(task), n_threads) {}

    Part part(const TopK& task, int thread) const {
        Arena arena{static_cast<char*>(parts.of(thread))};
        return {arena, task, batch, n_threads};
    }

  private:
    std::int64_t bytes_of_part(const TopK& task) const {
        Arena arena{nullptr};
        Part(arena, task, batch, n_threads);
        return arena.used;
    }
};

// One batch of queries. Each thread finds the k best of the rows that it takes, then merges a share of the queries.
void topk_batch(const TopK& task, std::int64_t n_rows, const Space& space, std::int64_t* rows, float* scores) {
    const TopKKernels& kernels = topk_kernels();
    SharedSteps steps(n_rows, std::max<std::int64_t>(1024, kStep / (lanes_of(task.n_queries) * task.vector_size)));
    parallel(space.n_threads, [&](int thread) {
        const Part mine = space.part(task, thread);
        kernels.begin(task, mine.heaps, mine.scratch);
        steps.take([&](long long from, long long to) { kernels.range(task, from, to, mine.heaps, mine.scratch); });
    });
    parallel_shares(task.n_queries, space.n_threads, [&](long long begin, long long end, int thread) {
        Candidate* const all = space.part(task, thread).gathered;
        for (long long q = begin; q < end; ++q) {
            check_interrupt();
            Candidate* into = all;
            for (int other = 0; other < space.n_threads; ++other) {
                into = std::copy_n(space.part(task, other).heaps + q * task.k, task.k, into);
            }
            std::partial_sort(all, all + task.k, into, better);
            for (std::int64_t i = 0; i < task.k; ++i) {
                const bool found = all[i].row != kNoCandidate;
                rows[q * task.k + i] = found ? all[i].row : -1;
                scores[q * task.k + i] = found ? all[i].score : std::nanf("");
            }
        }
    });
}

}  // namespace

void inverse_norms(const float* matrix, std::int64_t rows, std::int64_t columns, std::int64_t stride, int n_threads,
                   float* out) {
    SharedSteps steps(rows, 1 << 14);
    parallel(n_threads, [&](int) {
        steps.take([&](long long from, long long to) {
            for (long long row = from; row < to; ++row) out[row] = inverse_norm(matrix + row * stride, columns);
        });
    });
}

std::int64_t topk_bytes(const TopK& task, std::int64_t n_rows, int n_threads) {
    if (task.k == 0) return 0;
    Arena arena{nullptr};
    Space(arena, task, n_rows, n_threads);
    return arena.used;
}

void topk(const TopK& task, std::int64_t n_rows, int n_threads, std::int64_t* rows, float* scores, void* workspace) {
    if (task.k == 0) return;
    Arena arena{static_cast<char*>(workspace)};
    const Space space(arena, task, n_rows, n_threads);
    const std::int64_t size = task.vector_size;
    for (std::int64_t first = 0; first < task.n_queries; first += space.batch) {
        TopK batch = task;
        batch.n_queries = std::min(space.batch, task.n_queries - first);
        batch.queries = space.units;
        for (std::int64_t q = 0; q < batch.n_queries; ++q) {
            const float* const query = task.queries + (first + q) * size;
            const float scale = inverse_norm(query, size);
            for (std::int64_t d = 0; d < size; ++d) space.units[q * size + d] = query[d] * scale;
        }
        topk_batch(batch, n_rows, space, rows + first * task.k, scores + first * task.k);
    }
}

}  // namespace firth
