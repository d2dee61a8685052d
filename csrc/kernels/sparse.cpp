// A row of the result stays in registers while its entries pass: each is one broadcast and a multiply-add for every
// vector of the dense row it names. The dense rows come from wherever the columns point, so they are asked for some
// entries ahead; nothing else is read more than once.

#include "kernels/sparse.hpp"

#include "kernels/simd.hpp"

namespace firth::FIRTH_ISA {
namespace {

// Vectors of a row that are summed at once: with AVX-512, 128 floats; enough chains to hide what an addition takes.
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

// The columns from `from` on, fewer than a vector has: a width that callers in a hurry avoid.
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

}  // namespace

void sparse_rows(const SparseTimesDense& task, std::int64_t first, std::int64_t end) {
    // Passes as equal as can be: 14 vectors are 7 and 7, not 8 and 6.
    std::int64_t vectors = task.width / kWidth, from = 0;
    for (std::int64_t passes = (vectors + kVectors - 1) / kVectors; passes > 0; --passes) {
        const std::int64_t now = (vectors + passes - 1) / passes;
        switch (now) {
            case 1:
                sum_vectors<1>(task, first, end, from);
                break;
            case 2:
                sum_vectors<2>(task, first, end, from);
                break;
            case 3:
                sum_vectors<3>(task, first, end, from);
                break;
            case 4:
                sum_vectors<4>(task, first, end, from);
                break;
            case 5:
                sum_vectors<5>(task, first, end, from);
                break;
            case 6:
                sum_vectors<6>(task, first, end, from);
                break;
            case 7:
                sum_vectors<7>(task, first, end, from);
                break;
            default:
                sum_vectors<kVectors>(task, first, end, from);
        }
        vectors -= now;
        from += now * kWidth;
    }
    if (from < task.width) sum_rest(task, first, end, from);
}

}  // namespace firth::FIRTH_ISA
