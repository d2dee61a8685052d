// Row by row: a counting sort finds all places of a word. Then its neighbors are summed in an accumulator as long as
// the vocabulary, which stays in cache. There is no hashing and no merging. The few columns of a rare word's row are
// sorted.

#include "runtime/counts.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "runtime/threads.hpp"

namespace firth {
namespace {

constexpr std::int64_t kAhead = 8;  // places between a prefetch and its use

// The current row: sums by column, and a bit for each column that was touched. The bits list the columns in order. If a
// row touches so few columns that scanning all bits would take most of the time, the columns are sorted instead.
class Accumulator {
  public:
    explicit Accumulator(std::int32_t n_words)
        : sums_(static_cast<std::size_t>(n_words)), touched_((static_cast<std::size_t>(n_words) + 63) / 64) {}

    // Returns whether the column had not been touched.
    bool add(std::int32_t column, std::uint64_t weight) {
        sums_[static_cast<std::size_t>(column)] += weight;
        std::uint64_t& bits = touched_[static_cast<std::size_t>(column) >> 6];
        const std::uint64_t before = bits;
        bits |= std::uint64_t{1} << (column & 63);
        return bits != before;
    }

    // Up to this many columns, sorting is faster than scanning the bits, of which 64 are tested at once.
    std::int64_t few() const { return static_cast<std::int64_t>(touched_.size()) / 16; }

    // Appends the non-zero columns to the arrays, clears itself, and returns how many there were.
    std::int64_t take(std::int32_t* columns, float* values) {
        std::int64_t n = 0;
        for (std::size_t block = 0; block < touched_.size(); ++block) {
            std::uint64_t bits = touched_[block];
            if (bits == 0) continue;
            touched_[block] = 0;
            for (; bits != 0; bits &= bits - 1) {
                const std::size_t column = block * 64 + static_cast<std::size_t>(std::countr_zero(bits));
                columns[n] = static_cast<std::int32_t>(column);
                values[n] = take(column);
                ++n;
            }
        }
        return n;
    }

    // The same of the n columns that have been touched, which are put in order.
    void take(std::int32_t* columns, std::int64_t n, float* values) {
        std::sort(columns, columns + n);
        for (std::int64_t i = 0; i < n; ++i) {
            const auto column = static_cast<std::size_t>(columns[i]);
            touched_[column >> 6] = 0;
            values[i] = take(column);
        }
    }

  private:
    float take(std::size_t column) {
        // Once through double, exact up to 2^53 units, then one rounding to float.
        return static_cast<float>(static_cast<double>(std::exchange(sums_[column], 0)) * (1.0 / (1 << kWeightBits)));
    }

    std::vector<std::uint64_t> sums_;
    std::vector<std::uint64_t> touched_;
};

}  // namespace

Places::Places(const CooccurrenceTask& task, const std::int64_t* counts, std::int32_t first, std::int32_t n,
               int n_threads)
    : first_(first) {
    for (std::int32_t word = first; word < first + n; ++word) begin_.push_back(begin_.back() + counts[word]);
    const std::int64_t total = begin_.back();
    positions_ = Pages(static_cast<std::size_t>(total) * sizeof(std::int64_t));
    auto* const positions = positions_.as<std::int64_t>();
    // Each thread sorts a range of words of about equal tokens: all read the whole text, none writes another's.
    parallel(n_threads, [&](int thread) {
        const auto cut = [&](int t) {
            const auto at = std::lower_bound(begin_.begin(), begin_.end(), total * t / n_threads);
            return t == n_threads ? n : static_cast<std::int32_t>(at - begin_.begin());
        };
        const std::int32_t from = thread == 0 ? 0 : cut(thread), to = cut(thread + 1);
        if (from >= to) return;
        std::vector<std::int64_t> next(begin_.begin() + from, begin_.begin() + to);
        const auto low = static_cast<std::uint32_t>(first + from), span = static_cast<std::uint32_t>(to - from);
        in_steps(0, task.n_tokens, 1 << 22, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t p = begin; p < end; ++p) {
                const std::uint32_t word = static_cast<std::uint32_t>(task.ids[p]) - low;
                if (word < span) positions[next[word]++] = p;
            }
        });
    });
}

DocumentStarts::DocumentStarts(const CooccurrenceTask& task) : bits_(static_cast<std::size_t>(task.n_tokens / 64 + 1)) {
    for (std::int64_t d = 0; d <= task.n_documents; ++d) {
        const std::int64_t p = task.offsets[d];
        bits_[static_cast<std::size_t>(p >> 6)] |= std::uint64_t{1} << (p & 63);
    }
}

int DocumentStarts::before(std::int64_t position, int reach) const {
    // The nearest start at or before `position`, at 0 at the latest.
    std::int64_t block = position >> 6;
    std::uint64_t bits = bits_[static_cast<std::size_t>(block)] << (63 - (position & 63));
    std::int64_t distance = 0;
    if (bits == 0) {
        distance = (position & 63) + 1;
        while (distance <= reach && (bits = bits_[static_cast<std::size_t>(--block)]) == 0) distance += 64;
    }
    if (bits != 0) distance += std::countl_zero(bits);
    return static_cast<int>(std::min<std::int64_t>(distance, reach));
}

int DocumentStarts::behind(std::int64_t position, int reach) const {
    // The nearest start behind `position`, at n_tokens at the latest.
    const std::int64_t next = position + 1;
    std::int64_t block = next >> 6;
    std::uint64_t bits = bits_[static_cast<std::size_t>(block)] >> (next & 63);
    std::int64_t distance = 0;
    if (bits == 0) {
        distance = 64 - (next & 63);
        while (distance <= reach && (bits = bits_[static_cast<std::size_t>(++block)]) == 0) distance += 64;
    }
    if (bits != 0) distance += std::countr_zero(bits);
    return static_cast<int>(std::min<std::int64_t>(distance, reach));
}

std::int64_t count_rows(const CooccurrenceTask& task, const DocumentStarts& starts, const Places& places,
                        std::int32_t first, std::int32_t n, std::int64_t* lengths, std::int32_t* columns, float* values,
                        int n_threads) {
    const int left = task.left ? task.window : 0, right = task.right ? task.window : 0;
    const auto most = [&](std::int32_t row) {  // non-zeros that a row can have
        return std::min<std::int64_t>(task.n_words, places.count(row) * (left + right));
    };
    // Work items (pieces of the rows) of about equal cost. They are small enough that no thread waits long for another,
    // and that a result stays in cache until it is copied to its place.
    std::int64_t total = 0, room = 0, most_room = 0;
    for (std::int32_t row = first; row < first + n; ++row) total += places.count(row);
    const std::int64_t piece_tokens = std::clamp<std::int64_t>(total / (64 * n_threads), 1000, 1 << 18);
    std::vector<std::int32_t> cuts{first};
    for (std::int32_t row = first, end = first + n; row < end; ++row) {
        room += most(row);
        most_room = std::max(most_room, room);
        if (row + 1 == end || places.begin(row + 1) - places.begin(cuts.back()) >= piece_tokens) {
            cuts.push_back(row + 1);
            room = 0;
        }
    }

    // The place of a work item's result is known when all earlier items are counted. Items are taken in order, so the
    // first that is not yet counted always has a thread and waits for no other.
    std::int64_t size = 0;  // of the pieces counted
    std::size_t counted = 0;
    std::mutex guard;
    std::condition_variable changed;
    std::atomic<std::size_t> next{0};
    const std::size_t n_pieces = cuts.size() - 1;
    parallel(n_threads, [&](int) {
        // All memory is allocated before the first work item: a started piece of work must be finished.
        Accumulator row(task.n_words);
        const Pages own_columns(static_cast<std::size_t>(most_room) * sizeof(std::int32_t));
        const Pages own_values(static_cast<std::size_t>(most_room) * sizeof(float));
        for (std::size_t piece; (piece = next++) < n_pieces;) {
            std::int64_t here = 0;
            for (std::int32_t r = cuts[piece]; r < cuts[piece + 1]; ++r) {
                const std::int64_t* const at = places.begin(r);
                const std::int64_t count = places.count(r);
                const auto each_near = [&](auto add) {
                    for (std::int64_t i = 0; i < count; ++i) {
                        const std::int64_t p = at[i];
                        if (i + kAhead < count) __builtin_prefetch(task.ids + at[i + kAhead]);
                        const int before = left ? starts.before(p, left) : 0;
                        const int behind = right ? starts.behind(p, right) : 0;
                        for (int d = 0; d < before; ++d) add(task.ids[p - d - 1], task.left[d]);
                        for (int d = 0; d < behind; ++d) add(task.ids[p + d + 1], task.right[d]);
                    }
                };
                std::int32_t* const row_columns = own_columns.as<std::int32_t>() + here;
                float* const row_values = own_values.as<float>() + here;
                std::int64_t n_columns = 0;
                if (most(r) < row.few()) {
                    each_near([&](std::int32_t column, std::uint64_t weight) {
                        if (row.add(column, weight)) row_columns[n_columns++] = column;
                    });
                    row.take(row_columns, n_columns, row_values);
                } else {
                    each_near([&](std::int32_t column, std::uint64_t weight) { row.add(column, weight); });
                    n_columns = row.take(row_columns, row_values);
                }
                lengths[r - first] = n_columns;
                here += n_columns;
            }
            std::unique_lock lock(guard);
            changed.wait(lock, [&] { return counted == piece; });
            const std::int64_t begin = size;
            size += here;
            ++counted;
            lock.unlock();
            changed.notify_all();
            std::copy_n(own_columns.as<std::int32_t>(), here, columns + begin);
            std::copy_n(own_values.as<float>(), here, values + begin);
            check_interrupt();
        }
    });
    return size;
}

}  // namespace firth
