#include "runtime/sparse.hpp"

#include "bindings/check.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

const float* end_of(const Matrix& m) { return m.rows == 0 ? m.data : m.data + (m.rows - 1) * m.stride + m.columns; }

void times_dense(py::array_t<float>& out, const py::array_t<std::int64_t>& indptr,
                 const py::array_t<std::int32_t>& indices, const py::array_t<float>& data,
                 const py::array_t<float>& dense, int threads) {
    const Matrix result = matrix_of(out, "out", true), x = matrix_of(dense, "dense", false);
    const std::int64_t* const begin = vector_of(indptr, "indptr", result.rows + 1);
    const std::int64_t n = indices.size();
    const std::int32_t* const column = vector_of(indices, "indices");
    const float* const value = vector_of(data, "data", n);
    require(x.columns == result.columns, "out and dense must have equally many columns, not " +
                                             std::to_string(result.columns) + " and " + std::to_string(x.columns));
    threads_of(threads);
    require(end_of(result) <= x.data || end_of(x) <= result.data, "out and dense must not overlap");
    const py::gil_scoped_release release;
    require(begin[0] == 0 && begin[result.rows] == n, "indptr must run from 0 to the number of indices");
    for (std::int64_t row = 0; row < result.rows; ++row) {
        if (begin[row] > begin[row + 1]) {
            throw std::invalid_argument("indptr[" + std::to_string(row + 1) + "] is below the one before it");
        }
    }
    parallel_shares(n, threads, [&](long long first, long long end, int) {
        for (long long i = first; i < end; ++i) {
            if (column[i] < 0 || column[i] >= x.rows) {
                throw std::invalid_argument("indices[" + std::to_string(i) + "] = " + std::to_string(column[i]) +
                                            " is no row of dense, which has " + std::to_string(x.rows));
            }
        }
    });
    sparse_times_dense(
        {begin, column, value, x.data, result.data, result.rows, result.columns, x.stride, result.stride}, threads);
}

}  // namespace

void bind_sparse(py::module_& m) {
    m.def("sparse_times_dense", &times_dense, py::arg("out").noconvert(), py::kw_only(), py::arg("indptr").noconvert(),
          py::arg("indices").noconvert(), py::arg("data").noconvert(), py::arg("dense").noconvert(),
          py::arg("threads"));
}

}  // namespace firth
