#include "runtime/glove.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>

#include "runtime/random.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

constexpr std::int64_t kFewEntries = 1 << 22;  // so few that what they take does not matter
constexpr float kLeast = std::numeric_limits<float>::min(), kMost = std::numeric_limits<float>::max();
constexpr std::int64_t kWindow = 256;  // slices of the order among which a thread looks for one that may start

// Where blocks of about equal non-zeros begin; begins (n + 1) is how many lie before each row, or column. Within a
// block 16 bits distinguish them.
std::vector<std::int32_t> cut(const std::int64_t* begins, std::int32_t n) {
    std::vector<std::int32_t> cuts{0};
    for (std::int32_t row = 1; row < n; ++row) {
        const auto blocks = static_cast<std::int64_t>(cuts.size());
        if (begins[row] * kGloveBlocks >= begins[n] * blocks || row - cuts.back() > 0xFFFF) cuts.push_back(row);
    }
    cuts.push_back(n);
    return cuts;
}

// Lets slices start as soon as those before them in the order that share their block of rows or of columns are done.
class Turns {
  public:
    struct Slice {
        std::int32_t row_block, column_block;
    };

    Turns(std::vector<Slice> slices, std::size_t row_blocks, std::size_t column_blocks)
        : slices_(std::move(slices)), rows_done_(row_blocks), columns_done_(column_blocks), taken_(slices_.size()) {
        std::vector<std::uint32_t> rows(row_blocks), columns(column_blocks);
        for (const Slice& slice : slices_) {
            turns_.push_back({rows[static_cast<std::size_t>(slice.row_block)]++,
                              columns[static_cast<std::size_t>(slice.column_block)]++});
        }
    }

    // The number of a slice that may start now; waits for one. -1 when none is left, or after `stop`.
    std::int64_t take() {
        std::unique_lock lock(guard_);
        while (true) {
            while (first_ < taken_.size() && taken_[first_]) ++first_;
            if (stopped_ || first_ == taken_.size()) return -1;
            // What lies first in the order waits for nobody but those at work, so somebody can always go on.
            const std::size_t end = std::min(taken_.size(), first_ + kWindow);
            for (std::size_t i = first_; i < end; ++i) {
                if (taken_[i] || rows_done_[static_cast<std::size_t>(slices_[i].row_block)] != turns_[i].row ||
                    columns_done_[static_cast<std::size_t>(slices_[i].column_block)] != turns_[i].column) {
                    continue;
                }
                taken_[i] = 1;
                return static_cast<std::int64_t>(i);
            }
            changed_.wait(lock);
        }
    }

    void done(std::int64_t i) {
        const std::lock_guard lock(guard_);
        ++rows_done_[static_cast<std::size_t>(slices_[static_cast<std::size_t>(i)].row_block)];
        ++columns_done_[static_cast<std::size_t>(slices_[static_cast<std::size_t>(i)].column_block)];
        changed_.notify_all();
    }

    void stop() {
        const std::lock_guard lock(guard_);
        stopped_ = true;
        changed_.notify_all();
    }

  private:
    struct Turn {
        std::uint32_t row, column;  // slices before it in the same block
    };

    std::vector<Slice> slices_;
    std::vector<Turn> turns_;
    std::vector<std::uint32_t> rows_done_, columns_done_;
    std::vector<char> taken_;
    std::size_t first_ = 0;  // all before it are taken
    bool stopped_ = false;
    std::mutex guard_;
    std::condition_variable changed_;
};

// Block of each of n rows or columns.
std::vector<std::uint16_t> blocks_of(const std::vector<std::int32_t>& cuts) {
    std::vector<std::uint16_t> blocks(static_cast<std::size_t>(cuts.back()));
    for (std::size_t b = 0; b + 1 < cuts.size(); ++b) {
        std::fill(blocks.begin() + cuts[b], blocks.begin() + cuts[b + 1], static_cast<std::uint16_t>(b));
    }
    return blocks;
}

// Looks at a matrix once: how many non-zeros lie before each column (n + 1).
template <class Index>
std::vector<std::int64_t> check_and_count(const std::int64_t* begins, const Index* columns, const float* values,
                                          std::int32_t n, int n_threads) {
    for (std::int32_t row = 0; row < n; ++row) {
        if (begins[row] > begins[row + 1])
            throw std::invalid_argument("a row ends before it begins: row " + std::to_string(row));
    }
    std::vector<std::int64_t> total(static_cast<std::size_t>(n) + 1);
    std::mutex guard;
    std::int64_t wrong = begins[n];
    // The threads' own counts together take no more memory than the tiles will, which are made when these are gone.
    const std::int64_t most = std::max(begins[n], kFewEntries) / (static_cast<std::int64_t>(n) + 1);
    n_threads = static_cast<int>(std::clamp<std::int64_t>(most, 1, n_threads));
    parallel_shares(begins[n], n_threads, [&](long long begin, long long end, int) {
        std::vector<std::int64_t> mine(total.size());
        long long first_wrong = begins[n];
        in_steps(begin, end, 1 << 20, [&](long long from, long long to) {
            for (long long at = from; at < to && first_wrong == begins[n]; ++at) {
                const float x = values[at];
                if (columns[at] < 0 || columns[at] >= n || !(x >= kLeast && x <= kMost)) {
                    first_wrong = at;
                } else {
                    ++mine[static_cast<std::size_t>(columns[at]) + 1];
                }
            }
        });
        const std::lock_guard lock(guard);
        wrong = std::min<std::int64_t>(wrong, first_wrong);
        for (std::size_t i = 0; i < mine.size(); ++i) total[i] += mine[i];
    });
    if (wrong < begins[n]) {
        const auto row = std::upper_bound(begins, begins + n + 1, wrong) - begins - 1;
        const std::string place = "row " + std::to_string(row) + ", column " + std::to_string(columns[wrong]);
        if (columns[wrong] < 0 || columns[wrong] >= n) {
            throw std::invalid_argument(place + " lies outside of a matrix of " + std::to_string(n) + " words");
        }
        std::ostringstream message;  // std::to_string would write 0.000000 for what is small
        message << "the count in " << place << " is " << values[wrong] << "; only a positive number has a logarithm";
        if (values[wrong] > 0 && values[wrong] < kLeast) message << ", and below " << kLeast << " it loses digits";
        throw std::invalid_argument(message.str());
    }
    std::partial_sum(total.begin(), total.end(), total.begin());
    return total;
}

}  // namespace

template <class Index>
GloveTiles::GloveTiles(const std::int64_t* begins, const Index* columns, const float* values, std::int32_t n,
                       std::uint64_t seed, int n_threads)
    : seed_(seed), size_(begins[n]), entries_(static_cast<std::size_t>(begins[n]) * sizeof(GloveEntry)) {
    column_cuts_ = cut(check_and_count(begins, columns, values, n, n_threads).data(), n);
    row_cuts_ = cut(begins, n);
    const std::size_t row_blocks = row_cuts_.size() - 1, column_blocks = column_cuts_.size() - 1;
    const std::vector<std::uint16_t> block_of = blocks_of(column_cuts_);
    auto* const entries = entries_.as<GloveEntry>();
    const std::uint64_t key = random_key(seed, 1);
    std::vector<std::vector<Slice>> slices(row_blocks);
    std::atomic<std::size_t> next{0};
    parallel(n_threads, [&](int) {
        std::vector<std::int64_t> sizes(column_blocks);
        std::vector<std::uint32_t> first(column_blocks),
            dealt(column_blocks);      // of each tile: its first slice, and how many
        std::vector<std::int64_t> at;  // where a slice's next entry goes
        for (std::size_t b; (b = next++) < row_blocks;) {
            check_interrupt();
            const std::int64_t begin = begins[row_cuts_[b]], end = begins[row_cuts_[b + 1]];
            std::fill(sizes.begin(), sizes.end(), 0);
            for (std::int64_t i = begin; i < end; ++i) ++sizes[block_of[static_cast<std::size_t>(columns[i])]];
            std::uint32_t count = 0;
            for (std::size_t tile = 0; tile < column_blocks; ++tile) {
                first[tile] = count;
                dealt[tile] = static_cast<std::uint32_t>((sizes[tile] + kGloveSliceEntries - 1) / kGloveSliceEntries);
                count += dealt[tile];
            }
            const auto slice_of = [&](std::int64_t i) {
                const std::uint16_t tile = block_of[static_cast<std::size_t>(columns[i])];
                return first[tile] + random_below(random_at(key, static_cast<std::uint64_t>(i)), dealt[tile]);
            };
            at.assign(count + 1, 0);
            for (std::int64_t i = begin; i < end; ++i) ++at[slice_of(i) + 1];
            at[0] = begin;
            std::partial_sum(at.begin(), at.end(), at.begin());
            std::uint32_t slice = 0;
            for (std::size_t tile = 0; tile < column_blocks; ++tile) {
                for (; slice < first[tile] + dealt[tile]; ++slice) {
                    slices[b].push_back(
                        {static_cast<std::int32_t>(b), static_cast<std::int32_t>(tile), at[slice], at[slice + 1]});
                }
            }
            std::int64_t i = begin;
            for (std::int32_t row = row_cuts_[b]; row < row_cuts_[b + 1]; ++row) {
                for (; i < begins[row + 1]; ++i) {
                    const auto column = static_cast<std::int32_t>(columns[i]);
                    const std::int32_t first_column = column_cuts_[block_of[static_cast<std::size_t>(column)]];
                    entries[at[slice_of(i)]++] = {static_cast<std::uint16_t>(row - row_cuts_[b]),
                                                  static_cast<std::uint16_t>(column - first_column), values[i]};
                }
            }
        }
    });
    for (const auto& of_block : slices) slices_.insert(slices_.end(), of_block.begin(), of_block.end());
}

template GloveTiles::GloveTiles(const std::int64_t*, const std::int32_t*, const float*, std::int32_t, std::uint64_t,
                                int);
template GloveTiles::GloveTiles(const std::int64_t*, const std::int64_t*, const float*, std::int32_t, std::uint64_t,
                                int);

void GloveTiles::order(std::uint64_t epoch) {
    epoch_ = epoch;
    order_.resize(slices_.size());
    std::iota(order_.begin(), order_.end(), 0u);
    const std::uint64_t key = random_key(seed_, 2 + epoch);
    for (std::size_t i = order_.size(); i > 1; --i) {
        std::swap(order_[i - 1], order_[random_below(random_at(key, i), static_cast<std::uint32_t>(i))]);
    }
    begins_.assign(1, 0);
    for (const std::uint32_t slice : order_)
        begins_.push_back(begins_.back() + slices_[slice].end - slices_[slice].begin);
}

GloveTally GloveTiles::train(Glove task, std::int64_t begin, std::int64_t end, std::uint64_t epoch, int n_threads) {
    if (epoch != epoch_) order(epoch);
    const auto stride = static_cast<std::size_t>(task.stride), size = static_cast<std::size_t>(task.vector_size);
    std::vector<float> rates(3 * stride);
    std::fill_n(rates.begin(), size, task.learning_rate);
    rates[size] = 1;  // a word's bias
    std::fill_n(rates.begin() + static_cast<std::ptrdiff_t>(stride), size, task.learning_rate);
    rates[stride + size + 1] = 1;  // a context word's
    std::fill_n(rates.begin() + static_cast<std::ptrdiff_t>(2 * stride), size, task.clip_value);
    std::fill(rates.begin() + static_cast<std::ptrdiff_t>(2 * stride + size), rates.end(), kMost);
    task.rates = rates.data();
    const auto first = std::lower_bound(begins_.begin(), begins_.end() - 1, begin) - begins_.begin();
    const auto last = std::lower_bound(begins_.begin(), begins_.end() - 1, end) - begins_.begin();
    std::vector<Turns::Slice> chosen;
    for (auto i = first; i < last; ++i) {
        const Slice& slice = slices_[order_[static_cast<std::size_t>(i)]];
        chosen.push_back({slice.row_block, slice.column_block});
    }
    std::vector<double> costs(chosen.size());
    Turns turns(std::move(chosen), row_cuts_.size() - 1, column_cuts_.size() - 1);
    const GloveKernels& kernels = glove_kernels();
    parallel(n_threads, [&](int) {
        for (std::int64_t i; (i = turns.take()) >= 0;) {
            const Slice& slice = slices_[order_[static_cast<std::size_t>(first + i)]];
            const double cost = kernels.slice(task, entries_.as<GloveEntry>() + slice.begin, slice.end - slice.begin,
                                              row_cuts_[static_cast<std::size_t>(slice.row_block)],
                                              column_cuts_[static_cast<std::size_t>(slice.column_block)]);
            costs[static_cast<std::size_t>(i)] = cost;
            if (std::isnan(cost)) turns.stop();
            turns.done(i);
        }
    });
    GloveTally tally;
    tally.entries = begins_[static_cast<std::size_t>(last)] - begins_[static_cast<std::size_t>(first)];
    for (std::size_t i = 0; i < costs.size(); ++i) {  // in one order, whatever the threads
        // Rounded to a multiple of 2^-30, in two sums that are exact: no cut of the epoch shows in them.
        const double whole = std::floor(costs[i]);
        tally.cost += whole;
        tally.cost_part += std::nearbyint((costs[i] - whole) * 0x1p30) * 0x1p-30;
        if (std::isnan(costs[i])) {
            const Slice& slice = slices_[order_[static_cast<std::size_t>(first) + i]];
            tally.row = row_cuts_[static_cast<std::size_t>(slice.row_block)];
            break;
        }
    }
    return tally;
}

}  // namespace firth
