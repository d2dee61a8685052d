#include "runtime/topk.hpp"

#include "bindings/check.hpp"
#include "runtime/aligned.hpp"

namespace firth {
namespace {

py::array_t<float> inverse_norms_of(const py::array_t<float>& matrix, int threads) {
    const Matrix m = matrix_of(matrix, "matrix", false);
    threads = threads_of(threads);
    py::array_t<float> out(m.rows);
    float* const data = out.mutable_data();
    {
        const Released release;
        inverse_norms(m.data, m.rows, m.columns, m.stride, threads, data);
    }
    return out;
}

py::tuple search(const py::array_t<float>& matrix, const py::array_t<float>& norms, const Array<float>& queries,
                 std::int64_t k, int threads) {
    const Matrix m = matrix_of(matrix, "matrix", false);
    const Matrix q = matrix_of(queries, "queries", false);
    require(m.rows < kNoCandidate, "matrix must have fewer than 2^31 - 1 rows");
    require(m.columns >= 1, "matrix must have at least 1 column, not 0");
    require(q.columns == m.columns,
            "queries must have " + std::to_string(m.columns) + " columns, not " + std::to_string(q.columns));
    require(0 <= k && k <= m.rows, "k must lie in 0 .. " + std::to_string(m.rows) + ", not " + std::to_string(k));
    threads = threads_of(threads);
    const TopK task{m.data, vector_of(norms, "inverse_norms", m.rows), q.data, m.stride, m.columns, q.rows, k};

    py::array_t<std::int64_t> rows({q.rows, k});
    py::array_t<float> scores({q.rows, k});
    std::int64_t* const rows_data = rows.mutable_data();
    float* const scores_data = scores.mutable_data();
    {
        const KernelWork work;
        const AlignedBytes workspace(topk_bytes(task, m.rows, threads));
        topk(task, m.rows, threads, rows_data, scores_data, workspace.data);
    }
    return py::make_tuple(rows, scores);
}

}  // namespace

void bind_topk(py::module_& m) {
    m.def("inverse_norms", &inverse_norms_of, py::arg("matrix").noconvert(), py::kw_only(), py::arg("threads"));
    m.def("topk", &search, py::arg("matrix").noconvert(), py::kw_only(), py::arg("inverse_norms").noconvert(),
          py::arg("queries").noconvert(), py::arg("k"), py::arg("threads"));
}

}  // namespace firth
