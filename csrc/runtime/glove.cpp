#include "runtime/glove.hpp"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>

#include "kernels/arena.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

constexpr std::int64_t kWindow = 256;  // slices of the order among which a thread looks for one that may start

// Lets a slice start as soon as all earlier ones that share its block of rows or of columns are done.
class Turns {
  public:
    Turns(Arena& arena, const GloveSlices& slices)
        : slices_(slices),
          turns_(arena.take<Turn>(slices.n)),
          rows_done_(arena.take<std::uint32_t>(slices.row_blocks)),
          columns_done_(arena.take<std::uint32_t>(slices.column_blocks)),
          taken_(arena.take<bool>(slices.n)) {}

    void begin() {
        const auto clear = [&] {
            std::fill_n(rows_done_, slices_.row_blocks, 0u);
            std::fill_n(columns_done_, slices_.column_blocks, 0u);
        };
        clear();
        for (std::int64_t i = 0; i < slices_.n; ++i) {
            turns_[i] = {rows_done_[slices_[i].row_block]++, columns_done_[slices_[i].column_block]++};
        }
        clear();
        std::fill_n(taken_, slices_.n, false);
    }

    // The number of a slice that may start now; waits for one. -1 when none is left, or after `stop`.
    std::int64_t take() {
        std::unique_lock lock(guard_);
        while (true) {
            while (first_ < slices_.n && taken_[first_]) ++first_;
            if (stopped_ || first_ == slices_.n) return -1;
            // The first slice that is not taken only waits for slices in work, so one can always start.
            const std::int64_t end = std::min(slices_.n, first_ + kWindow);
            for (std::int64_t i = first_; i < end; ++i) {
                if (taken_[i] || rows_done_[slices_[i].row_block] != turns_[i].row ||
                    columns_done_[slices_[i].column_block] != turns_[i].column) {
                    continue;
                }
                taken_[i] = true;
                return i;
            }
            changed_.wait(lock);
        }
    }

    void done(std::int64_t i) {
        const std::lock_guard lock(guard_);
        ++rows_done_[slices_[i].row_block];
        ++columns_done_[slices_[i].column_block];
        changed_.notify_all();
    }

    void stop() {
        const std::lock_guard lock(guard_);
        stopped_ = true;
        changed_.notify_all();
    }

  private:
    struct Turn {
        std::uint32_t row, column;  // earlier slices of the same block
    };

    const GloveSlices& slices_;
    Turn* turns_;
    std::uint32_t *rows_done_, *columns_done_;
    bool* taken_;
    std::int64_t first_ = 0;  // all before it are taken
    bool stopped_ = false;
    std::mutex guard_;
    std::condition_variable changed_;
};

struct Space {
    float* rates;  // (3, stride)
    double* costs;
    Turns turns;

    Space(Arena& arena, const Glove& task, const GloveSlices& slices)
        : rates(arena.take<float>(3 * static_cast<std::int64_t>(task.stride))),
          costs(arena.take<double>(slices.n)),
          turns(arena, slices) {}
};

void fill_rates(const Glove& task, float* words) {
    float *const contexts = words + task.stride, *const clips = contexts + task.stride,
                 *const end = clips + task.stride;
    const int size = task.vector_size;
    std::fill(words, clips, 0.0f);
    std::fill_n(words, size, task.learning_rate);
    words[size] = 1;  // the bias
    std::fill_n(contexts, size, task.learning_rate);
    contexts[size + 1] = 1;  // the bias
    std::fill_n(clips, size, task.clip_value);
    std::fill(clips + size, end, std::numeric_limits<float>::max());
}

}  // namespace

std::int64_t train_glove_bytes(const Glove& task, const GloveSlices& slices) {
    Arena arena{nullptr};
    Space(arena, task, slices);
    return arena.used;
}

GloveTally train_glove(Glove task, const GloveSlices& slices, int n_threads, void* workspace) {
    Arena arena{static_cast<char*>(workspace)};
    Space space(arena, task, slices);
    fill_rates(task, space.rates);
    task.rates = space.rates;
    space.turns.begin();
    std::fill_n(space.costs, slices.n, 0.0);
    const GloveKernels& kernels = glove_kernels();
    parallel(n_threads, [&](int) {
        for (std::int64_t i; (i = space.turns.take()) >= 0;) {
            const GloveSlice& slice = slices[i];
            space.costs[i] = kernels.slice(task, slices.entries + slice.begin, slice.end - slice.begin, slice.first_row,
                                           slice.first_column);
            if (std::isnan(space.costs[i])) space.turns.stop();
            space.turns.done(i);
        }
    });
    GloveTally tally;
    for (std::int64_t i = 0; i < slices.n; ++i) tally.entries += slices[i].end - slices[i].begin;
    for (std::int64_t i = 0; i < slices.n; ++i) {  // in one order, whatever the threads
        // Rounded to a multiple of 2^-30, in two exact sums: cutting the epoch into calls does not change them.
        const double cost = space.costs[i], whole = std::floor(cost);
        tally.cost += whole;
        tally.cost_part += std::nearbyint((cost - whole) * 0x1p30) * 0x1p-30;
        if (std::isnan(cost)) {
            tally.row = slices[i].first_row;
            break;
        }
    }
    return tally;
}

}  // namespace firth
