#include "runtime/sparse.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "runtime/threads.hpp"

namespace firth {
namespace {

constexpr std::int64_t kStep = std::int64_t{1} << 29;  // multiplications between two looks at whether to go on
constexpr std::int64_t kSample = 1 << 14;              // entries looked at to tell where most of them lie

// A thread is worth its start from some hundred thousand multiplications; the result is the same.
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
    // Pieces of about equal cost, several for each thread: where the entries lie decides how long one takes.
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

void sparse_transposed_times_dense(const SparseTimesDense& task, std::int64_t n_columns, int n_threads) {
    const std::int64_t n = task.begin[task.n_rows];
    n_threads = worth(n + n_columns, task.width, n_threads);
    // Each thread has a range of columns of about equal entries, as a sample of them has it.
    std::vector<std::int32_t> sample;
    if (n_threads > 1) {
        const std::int64_t step = n / kSample + 1;
        for (std::int64_t i = 0; i < n; i += step) sample.push_back(task.columns[i]);
        std::sort(sample.begin(), sample.end());
    }
    const auto cut = [&](std::size_t thread) -> std::int64_t {
        if (thread == 0) return 0;
        if (thread == static_cast<std::size_t>(n_threads)) return n_columns;
        return sample.empty() ? 0 : sample[sample.size() * thread / static_cast<std::size_t>(n_threads)];
    };
    const SparseKernels& kernels = sparse_kernels();
    parallel(n_threads, [&](int thread) {
        const auto t = static_cast<std::size_t>(thread);
        const std::int64_t first = cut(t), end = cut(t + 1);
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
