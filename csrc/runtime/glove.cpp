#include "runtime/glove.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <new>
#include <utility>

#include "kernels/arena.hpp"
#include "runtime/pause.hpp"
#include "runtime/threads.hpp"
#include "runtime/trace.hpp"

namespace firth {
namespace {

// Lets a slice start as soon as the one before it in its block of rows, and that in its block of columns, are done.
class Queue {
  public:
    Queue(Arena& arena, const GloveSlices& slices)
        : slices_(slices),
          after_(arena.take<After>(slices.n)),
          waits_(arena.take<std::atomic<std::int32_t>>(slices.n)),
          queue_(arena.take<std::atomic<std::int32_t>>(slices.n)),
          last_in_row_(arena.take<std::int32_t>(slices.row_blocks)),
          last_in_column_(arena.take<std::int32_t>(slices.column_blocks)) {}

    void begin() {
        std::fill_n(last_in_row_, slices_.row_blocks, kNone);
        std::fill_n(last_in_column_, slices_.column_blocks, kNone);
        const auto count = static_cast<std::int32_t>(slices_.n);
        for (std::int32_t i = 0; i < count; ++i) {
            after_[i] = {kNone, kNone};
            new (queue_ + i) std::atomic<std::int32_t>(kNone);
            const std::int32_t in_row = std::exchange(last_in_row_[slices_[i].row_block], i);
            const std::int32_t in_column = std::exchange(last_in_column_[slices_[i].column_block], i);
            if (in_row != kNone) after_[in_row].in_row = i;
            if (in_column != kNone) after_[in_column].in_column = i;
            new (waits_ + i) std::atomic<std::int32_t>((in_row != kNone) + (in_column != kNone));
        }
        for (std::int32_t i = 0; i < count; ++i) {
            if (waits_[i].load(std::memory_order_relaxed) == 0) push(i);
        }
    }

    // The number of a slice that may start now; waits for one. kNone when all have been taken.
    std::int32_t take() {
        // Every slice is pushed once. Until the last one has been, some thread works on one that others wait for.
        const std::int64_t place = taken_.fetch_add(1, std::memory_order_relaxed);
        if (place >= slices_.n) return kNone;
        constexpr int kSpins = 2000;
        for (int i = 0; i < kSpins; ++i) {
            const std::int32_t slice = queue_[place].load(std::memory_order_acquire);
            if (slice != kNone) return slice;
            pause_spinning();
        }
        queue_[place].wait(kNone, std::memory_order_acquire);
        return queue_[place].load(std::memory_order_acquire);
    }

    void done(std::int32_t i) {
        for (const std::int32_t next : {after_[i].in_row, after_[i].in_column}) {
            if (next != kNone && waits_[next].fetch_sub(1, std::memory_order_acq_rel) == 1) push(next);
        }
    }

    static constexpr std::int32_t kNone = -1;

  private:
    struct After {
        std::int32_t in_row, in_column;  // the next slice of the same block
    };

    void push(std::int32_t i) {
        std::atomic<std::int32_t>& place = queue_[pushed_.fetch_add(1, std::memory_order_relaxed)];
        place.store(i, std::memory_order_release);
        place.notify_one();
    }

    const GloveSlices& slices_;
    After* after_;
    std::atomic<std::int32_t>* waits_;  // how many of the slices before each are not done
    std::atomic<std::int32_t>* queue_;  // slices that may start, in the order in which they are taken
    std::int32_t *last_in_row_, *last_in_column_;
    alignas(64) std::atomic<std::int64_t> taken_{0};
    alignas(64) std::atomic<std::int64_t> pushed_{0};
};

struct Space {
    float* rates;  // (3, stride)
    double* costs;
    Queue queue;

    Space(Arena& arena, const Glove& task, const GloveSlices& slices)
        : rates(arena.take<float>(3 * static_cast<std::int64_t>(task.stride))),
          costs(arena.take<double>(slices.n)),
          queue(arena, slices) {}
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
    space.queue.begin();
    std::fill_n(space.costs, slices.n, 0.0);
    const GloveKernels& kernels = glove_kernels();
    std::atomic<bool> stopped{false};
    parallel(n_threads, [&](int thread) {
        for (std::int32_t i; (i = space.queue.take()) != Queue::kNone; space.queue.done(i)) {
            const GloveSlice& slice = slices[i];
            const Traced traced("train slices", i, thread);
            if (stopped.load(std::memory_order_relaxed)) continue;
            space.costs[i] = kernels.slice(task, slices.entries + slice.begin, slice.end - slice.begin, slice.first_row,
                                           slice.first_column);
            if (std::isnan(space.costs[i])) stopped.store(true, std::memory_order_relaxed);
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
