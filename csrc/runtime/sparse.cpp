#include "runtime/sparse.hpp"

#include <algorithm>
#include <atomic>

#include "runtime/threads.hpp"

namespace firth {

void sparse_times_dense(const SparseTimesDense& task, int n_threads) {
    // A row costs its entries and, for being written, about one more.
    const auto cost = [&](std::int64_t row) { return task.begin[row] + row; };
    const std::int64_t total = cost(task.n_rows);
    // A thread is worth its start from some hundred thousand multiplications; the result is the same.
    const double work = static_cast<double>(total) * static_cast<double>(task.width);
    n_threads = static_cast<int>(std::clamp(work / 2e5, 1.0, static_cast<double>(n_threads)));
    // Pieces of about equal cost, several for each thread: where the entries lie decides how long one takes.
    const std::int64_t n_pieces = n_threads == 1 ? 1 : 16 * n_threads;
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
    std::atomic<std::int64_t> next{0};
    parallel(n_threads, [&](int) {
        for (std::int64_t piece; (piece = next++) < n_pieces;) {
            const std::int64_t end = piece + 1 == n_pieces ? task.n_rows : cut(piece + 1);
            FIRTH_KERNEL(sparse_rows)(task, cut(piece), end);
        }
    });
}

}  // namespace firth
