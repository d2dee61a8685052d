// A X: a row of the result stays in registers while its entries pass, each one broadcast and a multiply-add for every
// vector of the dense row it names. A^T X: a dense row stays in registers, and each entry adds a multiple of it to the
// row of the result that it names; that costs stores, but neither the time nor the memory of transposing A. The
// columns point to rows anywhere in memory, so rows are prefetched some entries ahead. Nothing else is read twice.

#include "kernels/sparse.hpp"

#include "kernels/count.hpp"

namespace firth::FIRTH_ISA {
namespace {

// Vectors of a row that are summed at once: with AVX-512, 128 floats; enough chains to hide the latency of an addition.
constexpr int kVectors = 8;
constexpr int kLine = 16;            // floats in a cache line
constexpr std::int64_t kAhead = 12;  // entries between a prefetch and its use

// Columns [from, from + Vectors * kWidth) of the rows [first, end).
template <int Vectors>
void sum_vectors(const SparseTimesDense& task, std::int64_t first, std::int64_t end, std::int64_t from) {
    const float* const dense = task.dense + from;
    const std::int64_t last = task.begin[task.n_rows] - 1;
    for (std::int64_t row = first; row < end; ++row) {
        Vec sum[Vectors] = {};
        const std::int64_t stop = task.begin[row + 1];
        for (std::int64_t i = task.begin[row]; i < stop; ++i) {
            const std::int64_t later = i + kAhead < last ? i + kAhead : last;
            const float* const ahead = dense + task.columns[later] * task.dense_stride;
#pragma GCC unroll 8
            for (int d = 0; d < Vectors * kWidth; d += kLine) __builtin_prefetch(ahead + d);
            const float* const x = dense + task.columns[i] * task.dense_stride;
            const Vec value = splat(task.values[i]);
#pragma GCC unroll 8
            for (int v = 0; v < Vectors; ++v) sum[v] += value * load(x + v * kWidth);
        }
        float* const out = task.out + row * task.out_stride + from;
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) store(out + v * kWidth, sum[v]);
    }
}

// The columns from `from` on, fewer than a vector has: slow, so fast callers avoid such widths.
void sum_rest(const SparseTimesDense& task, std::int64_t first, std::int64_t end, std::int64_t from) {
    for (std::int64_t row = first; row < end; ++row) {
        for (std::int64_t d = from; d < task.width; ++d) {
            float sum = 0;
            for (std::int64_t i = task.begin[row]; i < task.begin[row + 1]; ++i) {
                sum += task.values[i] * task.dense[task.columns[i] * task.dense_stride + d];
            }
            task.out[row * task.out_stride + d] = sum;
        }
    }
}

// The first of the ascending columns[low, high) that is not below `column`.
std::int64_t lower_bound(const std::int32_t* columns, std::int64_t low, std::int64_t high, std::int64_t column) {
    while (low < high) {
        const std::int64_t middle = low + (high - low) / 2;
        if (columns[middle] < column) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// Adds to columns [from, from + Vectors * kWidth) of the rows [first, end) of out.
template <int Vectors>
void add_vectors(const SparseTimesDense& task, std::int64_t first, std::int64_t end, std::int64_t from) {
    float* const out = task.out + from;
    for (std::int64_t row = 0; row < task.n_rows; ++row) {
        Vec x[Vectors];
        const std::int64_t row_end = task.begin[row + 1];
        const std::int64_t start = lower_bound(task.columns, task.begin[row], row_end, first);
        if (start == row_end) continue;
        const float* const dense = task.dense + row * task.dense_stride + from;
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) x[v] = load(dense + v * kWidth);
        for (std::int64_t i = start; i < row_end && task.columns[i] < end; ++i) {
            // Prefetches only within the row: the next one begins elsewhere.
            const std::int64_t later = i + kAhead < row_end ? i + kAhead : row_end - 1;
            const float* const ahead = out + task.columns[later] * task.out_stride;
#pragma GCC unroll 8
            for (int d = 0; d < Vectors * kWidth; d += kLine) __builtin_prefetch(ahead + d);
            float* const sum = out + task.columns[i] * task.out_stride;
            const Vec value = splat(task.values[i]);
#pragma GCC unroll 8
            for (int v = 0; v < Vectors; ++v) store(sum + v * kWidth, load(sum + v * kWidth) + value * x[v]);
        }
    }
}

void add_rest(const SparseTimesDense& task, std::int64_t first, std::int64_t end, std::int64_t from) {
    for (std::int64_t row = 0; row < task.n_rows; ++row) {
        const float* const x = task.dense + row * task.dense_stride;
        const std::int64_t row_end = task.begin[row + 1];
        std::int64_t i = lower_bound(task.columns, task.begin[row], row_end, first);
        for (; i < row_end && task.columns[i] < end; ++i) {
            float* const sum = task.out + task.columns[i] * task.out_stride;
            for (std::int64_t d = from; d < task.width; ++d) sum[d] += task.values[i] * x[d];
        }
    }
}

// Passes over the whole vectors of a row, as equal as possible: 14 vectors are 7 and 7, not 8 and 6. Returns the column
// at which they end.
template <class Pass>
FIRTH_INLINE std::int64_t in_passes(std::int64_t width, Pass pass) {
    std::int64_t vectors = width / kWidth, from = 0;
    for (std::int64_t passes = (vectors + kVectors - 1) / kVectors; passes > 0; --passes) {
        const std::int64_t now = (vectors + passes - 1) / passes;
        with_count<kVectors>(now, [&](auto count) FIRTH_INLINE_LAMBDA { pass(count, from); });
        vectors -= now;
        from += now * kWidth;
    }
    return from;
}

void sparse_rows(const SparseTimesDense& task, std::int64_t first, std::int64_t end) {
    const auto pass = [&](auto vectors, std::int64_t from) { sum_vectors<vectors.n>(task, first, end, from); };
    const std::int64_t rest = in_passes(task.width, pass);
    if (rest < task.width) sum_rest(task, first, end, rest);
}

void sparse_columns(const SparseTimesDense& task, std::int64_t first, std::int64_t end) {
    const auto pass = [&](auto vectors, std::int64_t from) { add_vectors<vectors.n>(task, first, end, from); };
    const std::int64_t rest = in_passes(task.width, pass);
    if (rest < task.width) add_rest(task, first, end, rest);
}

}  // namespace

const SparseKernels sparse_kernels{
    .rows = sparse_rows,
    .columns = sparse_columns,
};

}  // namespace firth::FIRTH_ISA
