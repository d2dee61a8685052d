#include "runtime/sparse.hpp"

#include <algorithm>

#include "bindings/lists.hpp"
#include "runtime/aligned.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

const float* end_of(const Matrix& m) { return m.rows == 0 ? m.data : m.data + (m.rows - 1) * m.stride + m.columns; }

// Checks A, (rows, columns), for both products.
void check_rows(const std::int64_t* begin, const std::int32_t* column, std::int64_t n, std::int64_t rows,
                std::int64_t columns, bool ascending, int threads) {
    check_begins(begin, rows, n, "indptr");
    check_items(column, n, 0, columns, "indices", threads);
    if (!ascending) return;
    parallel_shares(n, threads, [&](long long first, long long end, int) {
        std::int64_t row = std::upper_bound(begin, begin + rows + 1, first) - begin;  // begin[row]: the next row's
        for (long long i = std::max(first, 1LL); i < end; ++i) {
            if (column[i] >= column[i - 1]) continue;
            while (row < rows && begin[row] < i) ++row;
            if (begin[row] != i && begin[row - 1] != i) {
                throw std::invalid_argument("indices[" + std::to_string(i) + "] is below the one before it in its row");
            }
        }
    });
}

void times(bool transposed, py::array_t<float>& out, const py::array_t<std::int64_t>& indptr,
           const py::array_t<std::int32_t>& indices, const py::array_t<float>& data, const py::array_t<float>& dense,
           int threads) {
    const Matrix result = matrix_of(out, "out", true), x = matrix_of(dense, "dense", false);
    const std::int64_t rows = transposed ? x.rows : result.rows, columns = transposed ? result.rows : x.rows;
    const std::int64_t* const begin = vector_of(indptr, "indptr", rows + 1);
    const std::int64_t n = indices.size();
    const std::int32_t* const column = vector_of(indices, "indices");
    const float* const value = vector_of(data, "data", n);
    require(x.columns == result.columns, "out and dense must have equally many columns, not " +
                                             std::to_string(result.columns) + " and " + std::to_string(x.columns));
    threads = threads_of(threads);
    require(end_of(result) <= x.data || end_of(x) <= result.data, "out and dense must not overlap");
    const KernelWork work;
    check_rows(begin, column, n, rows, columns, transposed, threads);
    const SparseTimesDense task{begin, column,         value,    x.data,       result.data,
                                rows,  result.columns, x.stride, result.stride};
    if (transposed) {
        const AlignedBytes workspace(sparse_transposed_times_dense_bytes());
        sparse_transposed_times_dense(task, columns, threads, workspace.data);
    } else {
        sparse_times_dense(task, threads);
    }
}

}  // namespace

void bind_sparse(py::module_& m) {
    const auto bind = [&](const char* name, bool transposed) {
        m.def(
            name,
            [transposed](py::array_t<float>& out, const py::array_t<std::int64_t>& indptr,
                         const py::array_t<std::int32_t>& indices, const py::array_t<float>& data,
                         const py::array_t<float>& dense,
                         int threads) { times(transposed, out, indptr, indices, data, dense, threads); },
            py::arg("out").noconvert(), py::kw_only(), py::arg("indptr").noconvert(), py::arg("indices").noconvert(),
            py::arg("data").noconvert(), py::arg("dense").noconvert(), py::arg("threads"));
    };
    bind("sparse_times_dense", false);
    bind("sparse_transposed_times_dense", true);
}

}  // namespace firth
