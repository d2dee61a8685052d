#include "runtime/sparse.hpp"

#include <algorithm>
#include <atomic>

#include "kernels/sparse.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

constexpr std::int64_t kStep = std::int64_t{1} << 29;  // multiplications between two checks for an interrupt
constexpr std::int64_t kSample = 1 << 14;              // entries that are read to see where most of them lie

// A thread is worth its start from some hundred thousand multiplications. The result is the same.
int worth(std::int64_t entries, std::int64_t width, int n_threads) {
    const double work = static_cast<double>(entries) * static_cast<double>(width);
    return static_cast<int>(std::clamp(work / 2e5, 1.0, static_cast<double>(n_threads)));
}

}  // namespace

void sparse_times_dense(const SparseTimesDense& task, int n_threads) {
    // A row costs its entries and, for being written, about one more.
    const auto cost = [&](std::int64_t row) { return task.begin[row] + row; };
    const std::int64_t total = cost(task.n_rows);
    n_threads = worth(total, task.width, n_threads);
    // Work items of about equal cost, several for each thread, since the time of one depends on where its entries lie.
    const std::int64_t n_pieces =
        std::max<std::int64_t>(n_threads == 1 ? 1 : 16 * n_threads, total * task.width / kStep);
    const auto cut = [&](std::int64_t piece) {
        const double border = static_cast<double>(total) * static_cast<double>(piece) / static_cast<double>(n_pieces);
        std::int64_t low = 0, high = task.n_rows;
        while (low < high) {
            const std::int64_t middle = low + (high - low) / 2;
            if (static_cast<double>(cost(middle)) < border) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low;
    };
    const SparseKernels& kernels = sparse_kernels();
    std::atomic<std::int64_t> next{0};
    parallel(n_threads, [&](int) {
        for (std::int64_t piece; (piece = next++) < n_pieces;) {
            const std::int64_t end = piece + 1 == n_pieces ? task.n_rows : cut(piece + 1);
            check_interrupt();
            kernels.rows(task, cut(piece), end);
        }
    });
}

std::int64_t sparse_transposed_times_dense_bytes() { return kSample * static_cast<std::int64_t>(sizeof(std::int32_t)); }

void sparse_transposed_times_dense(const SparseTimesDense& task, std::int64_t n_columns, int n_threads,
                                   void* workspace) {
    const std::int64_t n = task.begin[task.n_rows];
    n_threads = worth(n + n_columns, task.width, n_threads);
    // Each thread has a range of columns of about equal entries, estimated from a sample of them.
    auto* const sample = static_cast<std::int32_t*>(workspace);
    std::int64_t sampled = 0;
    if (n_threads > 1) {
        const std::int64_t step = n / kSample + 1;
        for (std::int64_t i = 0; i < n; i += step) sample[sampled++] = task.columns[i];
        std::sort(sample, sample + sampled);
    }
    const auto cut = [&](int thread) -> std::int64_t {
        if (thread == 0) return 0;
        if (thread == n_threads) return n_columns;
        return sampled == 0 ? 0 : sample[sampled * thread / n_threads];
    };
    const SparseKernels& kernels = sparse_kernels();
    parallel(n_threads, [&](int thread) {
        const std::int64_t first = cut(thread), end = cut(thread + 1);
        for (std::int64_t column = first; column < end; ++column) {
            std::fill_n(task.out + column * task.out_stride, task.width, 0.0f);
        }
        const std::int64_t per_row =
            (n / std::max<std::int64_t>(1, task.n_rows) + 1) * std::max<std::int64_t>(1, task.width);
        const std::int64_t step = kStep / per_row * n_threads;
        in_steps(0, task.n_rows, step + 1, [&](std::int64_t from, std::int64_t to) {
            SparseTimesDense rows = task;
            rows.begin += from;
            rows.dense += from * task.dense_stride;
            rows.n_rows = to - from;
            kernels.columns(rows, first, end);
        });
    });
}

}  // namespace firth
