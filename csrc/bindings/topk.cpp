#include "kernels/topk.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "bindings/check.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

// 1 / |row|: 0 for a row whose length is 0 (or whose inverse no float holds), NaN for one whose length is no float.
float inverse_norm(const float* row, std::int64_t n) {
    double sum = 0;
    for (std::int64_t d = 0; d < n; ++d) sum += static_cast<double>(row[d]) * static_cast<double>(row[d]);
    const double norm = std::sqrt(sum);
    if (!(norm <= static_cast<double>(std::numeric_limits<float>::max()))) return std::nanf("");
    const double inverse = 1 / norm;
    return inverse <= static_cast<double>(std::numeric_limits<float>::max()) ? static_cast<float>(inverse) : 0.0f;
}

py::array_t<float> inverse_norms(const py::array_t<float>& matrix, int threads) {
    const Matrix m = matrix_of(matrix, "matrix", false);
    threads_of(threads);
    py::array_t<float> out(m.rows);
    float* const data = out.mutable_data();
    {
        const py::gil_scoped_release release;
        parallel_shares(m.rows, threads, [&](long long begin, long long end, int) {
            for (long long row = begin; row < end; ++row) data[row] = inverse_norm(m.data + row * m.stride, m.columns);
        });
    }
    return out;
}

bool better(const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

// One batch of queries: each thread finds the k best of its share of the rows, then each takes a share of the queries
// and merges. rows, scores: (n_queries, k).
void best_rows(const TopK& task, std::int64_t n_rows, int threads, std::int64_t* rows, float* scores) {
    const std::int64_t lanes = (task.n_queries + kQueryLanes - 1) / kQueryLanes * kQueryLanes;
    std::vector<std::vector<Candidate>> heaps(static_cast<std::size_t>(threads));
    parallel_shares(n_rows, threads, [&](long long begin, long long end, int thread) {
        std::vector<Candidate>& mine = heaps[static_cast<std::size_t>(thread)];
        mine.resize(static_cast<std::size_t>(task.n_queries * task.k));
        std::vector<float> scratch(static_cast<std::size_t>(lanes * (task.vector_size + 1)));
        FIRTH_KERNEL(topk_range)(task, begin, end, mine.data(), scratch.data());
    });
    parallel_shares(task.n_queries, threads, [&](long long begin, long long end, int) {
        std::vector<Candidate> all(static_cast<std::size_t>(threads * task.k));
        for (long long q = begin; q < end; ++q) {
            auto into = all.begin();
            for (const auto& heap : heaps) into = std::copy_n(heap.begin() + q * task.k, task.k, into);
            std::partial_sort(all.begin(), all.begin() + task.k, all.end(), better);
            for (std::int64_t i = 0; i < task.k; ++i) {
                const Candidate& found = all[static_cast<std::size_t>(i)];
                rows[q * task.k + i] = found.row == kNoRow ? -1 : found.row;
                scores[q * task.k + i] = found.row == kNoRow ? std::nanf("") : found.score;
            }
        }
    });
}

py::tuple topk(const py::array_t<float>& matrix, const py::array_t<float>& norms, const Array<float>& queries,
               std::int64_t k, int threads) {
    const Matrix m = matrix_of(matrix, "matrix", false);
    const Matrix q = matrix_of(queries, "queries", false);
    require(m.rows < kNoRow, "matrix must have fewer than 2^31 - 1 rows");
    require(q.columns == m.columns,
            "queries must have " + std::to_string(m.columns) + " columns, not " + std::to_string(q.columns));
    require(0 <= k && k <= m.rows, "k must lie in 0 .. " + std::to_string(m.rows) + ", not " + std::to_string(k));
    threads_of(threads);
    TopK task{};
    task.matrix = m.data;
    task.inverse_norms = vector_of(norms, "inverse_norms", m.rows);
    task.stride = m.stride;
    task.vector_size = m.columns;
    task.k = k;

    py::array_t<std::int64_t> rows({q.rows, k});
    py::array_t<float> scores({q.rows, k});
    std::int64_t* const rows_data = rows.mutable_data();
    float* const scores_data = scores.mutable_data();
    if (k > 0) {
        const py::gil_scoped_release release;
        // A thread is worth its start from some hundred thousand multiplications; the result is the same.
        const auto work = static_cast<double>(m.rows) * static_cast<double>(m.columns) * static_cast<double>(q.rows);
        threads = static_cast<int>(std::clamp(work / 2e5, 1.0, static_cast<double>(threads)));
        // Batches whose transposed queries stay in cache, and whose heaps stay below 256 MiB.
        const std::int64_t batch = std::clamp<std::int64_t>((std::int64_t{1} << 25) / (k * threads), 1, 1024);
        std::vector<float> units;
        for (std::int64_t first = 0; first < q.rows; first += batch) {
            task.n_queries = std::min(batch, q.rows - first);
            units.resize(static_cast<std::size_t>(task.n_queries * m.columns));
            for (std::int64_t i = 0; i < task.n_queries; ++i) {
                const float* const query = q.data + (first + i) * q.stride;
                const float scale = inverse_norm(query, m.columns);
                for (std::int64_t d = 0; d < m.columns; ++d) {
                    units[static_cast<std::size_t>(i * m.columns + d)] = query[d] * scale;
                }
            }
            task.queries = units.data();
            best_rows(task, m.rows, threads, rows_data + first * k, scores_data + first * k);
        }
    }
    return py::make_tuple(rows, scores);
}

}  // namespace

void bind_topk(py::module_& m) {
    m.def("inverse_norms", &inverse_norms, py::arg("matrix").noconvert(), py::kw_only(), py::arg("threads"));
    m.def("topk", &topk, py::arg("matrix").noconvert(), py::kw_only(), py::arg("inverse_norms").noconvert(),
          py::arg("queries").noconvert(), py::arg("k"), py::arg("threads"));
}

}  // namespace firth
