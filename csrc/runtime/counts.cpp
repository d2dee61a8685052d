// Row by row: a counting sort finds all places of a word. Then its neighbors are summed in an accumulator as long as
// the vocabulary, which stays in cache. There is no hashing. The few columns of a rare word's row are sorted. The sums
// of a frequent word, whose places several threads share, are added up: as they are integers, in any order. No thread
// waits for another before all rows are counted.

#include "runtime/counts.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <mutex>
#include <utility>

#include "runtime/threads.hpp"
#include "runtime/trace.hpp"

namespace firth {
namespace {

constexpr std::int64_t kAhead = 8;  // places between a prefetch and its use
// Costs are in additions of a weight to a sum, which take about a nanosecond.
constexpr std::int64_t kItemsPerThread = 32;
constexpr std::int64_t kLeastCost = 1 << 14, kMostCost = 1 << 22;  // of a work item
constexpr std::int64_t kPagePlaces = 512;                          // in the smallest page of memory
constexpr std::int64_t kBetweenChecks = 1 << 12;                   // places of a row
constexpr std::int64_t kChunk = 1 << 18;                           // non-zeros for which a thread asks for memory

// Sums by column, and a bit for each column that was touched. The bits list the columns in order. If a row touches so
// few columns that scanning all bits would take most of the time, the columns are sorted instead.
class Accumulator {
  public:
    explicit Accumulator(std::int32_t n_words)
        : blocks_((static_cast<std::size_t>(n_words) + 63) / 64),
          memory_(blocks_ * 65 * sizeof(std::uint64_t)),
          sums_(memory_.as<std::uint64_t>()),
          touched_(sums_ + blocks_ * 64) {}

    // Returns whether the column had not been touched.
    bool add(std::int32_t column, std::uint64_t weight) {
        sums_[column] += weight;
        std::uint64_t& bits = touched_[static_cast<std::size_t>(column) >> 6];
        const std::uint64_t before = bits;
        bits |= std::uint64_t{1} << (column & 63);
        return bits != before;
    }

    // Moves the sums of another one here.
    void absorb(Accumulator& other) {
        for (std::size_t block = 0; block < blocks_; ++block) {
            if (other.touched_[block] == 0) continue;
            touched_[block] |= std::exchange(other.touched_[block], 0);
            std::uint64_t *const to = sums_ + block * 64, *const from = other.sums_ + block * 64;
            for (int i = 0; i < 64; ++i) to[i] += from[i];
            std::fill_n(from, 64, 0);
        }
        parts += std::exchange(other.parts, 0);
    }

    // Up to this many columns, sorting is faster than scanning the bits, of which 64 are tested at once.
    std::int64_t few() const { return static_cast<std::int64_t>(blocks_) / 16; }

    // Appends the non-zero columns to the arrays, clears itself, and returns how many there were.
    std::int64_t take(std::int32_t* columns, float* values) {
        std::int64_t n = 0;
        for (std::size_t block = 0; block < blocks_; ++block) {
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

    std::int32_t parts = 0;  // of a split row whose sums are here

  private:
    float take(std::size_t column) {
        // Once through double, exact up to 2^53 units, then one rounding to float.
        return static_cast<float>(static_cast<double>(std::exchange(sums_[column], 0)) * (1.0 / (1 << kWeightBits)));
    }

    std::size_t blocks_;
    Pages memory_;
    std::uint64_t* sums_;
    std::uint64_t* touched_;
};

// Cleared accumulators, more of them whenever all are in use.
class Accumulators {
  public:
    Accumulator* take(std::int32_t n_words) {
        const std::lock_guard lock(guard_);
        if (free_.empty()) {
            all_.push_back(std::make_unique<Accumulator>(n_words));
            return all_.back().get();
        }
        Accumulator* const one = free_.back();
        free_.pop_back();
        return one;
    }
    void give_back(Accumulator* one) {
        const std::lock_guard lock(guard_);
        free_.push_back(one);
    }

  private:
    std::mutex guard_;
    std::vector<std::unique_ptr<Accumulator>> all_;
    std::vector<Accumulator*> free_;
};

// The rows that a thread has counted, until it is known where they belong.
class Buffer {
  public:
    // Makes room for so many non-zeros in one place.
    void reserve(std::int64_t room) {
        while (room > room_) {
            ++current_;
            if (current_ == chunks_.size()) {
                const std::int64_t size = std::max(room, kChunk);
                chunks_.push_back({Pages(static_cast<std::size_t>(2 * size) * sizeof(float)), size});
            }
            begin();
        }
    }
    std::int32_t* columns() const { return columns_; }
    float* values() const { return values_; }
    // Keeps the n non-zeros that have been written.
    void keep(std::int64_t n) {
        columns_ += n;
        values_ += n;
        room_ -= n;
    }
    void clear() {
        current_ = static_cast<std::size_t>(-1);
        room_ = 0;
    }

  private:
    struct Chunk {
        Pages memory;  // columns, then values
        std::int64_t room;
    };
    void begin() {
        const Chunk& chunk = chunks_[current_];
        room_ = chunk.room;
        columns_ = chunk.memory.as<std::int32_t>();
        values_ = chunk.memory.as<float>() + room_;
    }

    std::vector<Chunk> chunks_;
    std::size_t current_ = static_cast<std::size_t>(-1);
    std::int64_t room_ = 0;
    std::int32_t* columns_ = nullptr;
    float* values_ = nullptr;
};

int near(const CooccurrenceTask& task) { return (task.left ? task.window : 0) + (task.right ? task.window : 0); }

// Non-zeros that a row can have.
std::int64_t most(const CooccurrenceTask& task, const Places& places, std::int32_t row) {
    return std::min<std::int64_t>(task.n_words, places.count(row) * near(task));
}

}  // namespace

struct CountSpace {
    Accumulators accumulators;
    std::vector<Buffer> buffers;  // of each thread
};

Places::Places(const CooccurrenceTask& task, const std::int64_t* counts, std::int32_t first, std::int32_t n,
               int n_threads)
    : first_(first) {
    begin_.reserve(static_cast<std::size_t>(n) + 1);
    for (std::int32_t word = first; word < first + n; ++word) begin_.push_back(begin_.back() + counts[word]);
    positions_ = Pages(static_cast<std::size_t>(begin_.back()) * sizeof(std::int64_t));
    auto* const positions = positions_.as<std::int64_t>();
    const auto low = static_cast<std::uint32_t>(first), span = static_cast<std::uint32_t>(n);
    // A counting sort in parallel. Each thread has a share of the text: it counts the share's words, and when it is
    // known how many of each the earlier shares have, it writes their places. Of the last share no count is needed.
    std::vector<std::vector<std::int64_t>> next(static_cast<std::size_t>(n_threads));
    const auto each = [&](long long begin, long long end, auto&& use) {
        in_steps(begin, end, 1 << 22, [&](long long from, long long to) {
            for (long long p = from; p < to; ++p) {
                const std::uint32_t word = static_cast<std::uint32_t>(task.ids[p]) - low;
                if (word < span) use(word, p);
            }
        });
    };
    parallel_shares(task.n_tokens, n_threads, [&](long long begin, long long end, int thread) {
        const Traced traced("count places", thread, thread);
        std::vector<std::int64_t>& counted = next[static_cast<std::size_t>(thread)];
        counted.assign(span, 0);
        // Memory is made when it is first written to: here each thread writes to an equal share of it.
        const std::int64_t total = begin_.back(), own_end = total * (thread + 1) / n_threads;
        for (std::int64_t i = total * thread / n_threads; i < own_end; i += kPagePlaces) positions[i] = 0;
        if (thread + 1 < n_threads) each(begin, end, [&](std::uint32_t word, long long) { ++counted[word]; });
    });
    parallel_shares(n, n_threads, [&](long long begin, long long end, int thread) {
        const Traced traced("share places", thread, thread);
        std::vector<std::int64_t> at(begin_.begin() + begin, begin_.begin() + end);
        for (std::vector<std::int64_t>& of_thread : next) {
            for (auto word = static_cast<std::size_t>(begin); word < static_cast<std::size_t>(end); ++word) {
                std::int64_t& before = at[word - static_cast<std::size_t>(begin)];
                before += std::exchange(of_thread[word], before);
            }
        }
    });
    parallel_shares(task.n_tokens, n_threads, [&](long long begin, long long end, int thread) {
        const Traced traced("write places", thread, thread);
        std::int64_t* const to = next[static_cast<std::size_t>(thread)].data();
        each(begin, end, [&](std::uint32_t word, long long p) { positions[to[word]++] = p; });
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

std::vector<CountItem> count_items(const CooccurrenceTask& task, const Places& places, std::int32_t first,
                                   std::int32_t n, int n_threads) {
    // Adding weights, and finding the columns that were touched.
    const auto cost = [&](std::int32_t row) { return places.count(row) * near(task) + task.n_words / 64 + 1; };
    std::int64_t total = 0;
    for (std::int32_t row = first; row < first + n; ++row) total += cost(row);
    const std::int64_t enough = std::clamp(total / (kItemsPerThread * n_threads), kLeastCost, kMostCost);
    // Adding up the sums of two parts costs about as much as n_words additions.
    const std::int64_t part_cost = std::max<std::int64_t>(enough, 8 * static_cast<std::int64_t>(task.n_words));
    std::vector<CountItem> items;
    std::int32_t split = 0;
    std::int64_t gathered = 0;
    for (std::int32_t row = first, begin = first; row < first + n; ++row) {
        const std::int64_t here = cost(row), count = places.count(row);
        const std::int64_t parts = n_threads == 1 ? 1 : std::min((here + part_cost - 1) / part_cost, count);
        if (parts > 1) {
            if (begin < row) items.push_back({begin, row, 0, 0, 1, -1});
            for (std::int64_t i = 0; i < parts; ++i) {
                items.push_back({row, row + 1, count * i / parts, count * (i + 1) / parts,
                                 static_cast<std::int32_t>(parts), split});
            }
            ++split;
        } else {
            gathered += here;
            if (gathered < enough && row + 1 < first + n) continue;
            items.push_back({begin, row + 1, 0, 0, 1, -1});
        }
        begin = row + 1;
        gathered = 0;
    }
    return items;
}

std::int64_t count_rows(const CooccurrenceTask& task, const DocumentStarts& starts, const Places& places,
                        std::int32_t first, std::int32_t n, std::int64_t* lengths, std::int32_t* columns, float* values,
                        int n_threads, std::shared_ptr<CountSpace>& kept) {
    const int left = task.left ? task.window : 0, right = task.right ? task.window : 0;
    const std::vector<CountItem> items = count_items(task, places, first, n, n_threads);
    // If anything throws, the space is dropped: its accumulators hold half a row.
    std::shared_ptr<CountSpace> space = std::exchange(kept, nullptr);
    if (!space) space = std::make_shared<CountSpace>();
    Accumulators& accumulators = space->accumulators;
    std::vector<Buffer>& buffers = space->buffers;
    buffers.resize(std::max(buffers.size(), static_cast<std::size_t>(n_threads)));

    const auto each_near = [&](std::int32_t row, std::int64_t begin, std::int64_t end, auto&& add) {
        const std::int64_t* const at = places.begin(row);
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t p = at[i];
            if (i + kAhead < end) __builtin_prefetch(task.ids + at[i + kAhead]);
            const int before = left ? starts.before(p, left) : 0;
            const int behind = right ? starts.behind(p, right) : 0;
            for (int d = 0; d < before; ++d) add(task.ids[p - d - 1], task.left[d]);
            for (int d = 0; d < behind; ++d) add(task.ids[p + d + 1], task.right[d]);
            if (i % kBetweenChecks == kBetweenChecks - 1) check_interrupt();
        }
    };
    // Where the result of an item lies. The thread that completes a split row has the result of all of its parts.
    struct Result {
        const std::int32_t* columns = nullptr;
        const float* values = nullptr;
        std::int64_t size = 0;
    };
    std::vector<Result> results(items.size());
    // Sums of parts of a row that no thread is at work on: one accumulator at most.
    std::vector<std::atomic<Accumulator*>> parked(items.empty() ? 0 : items.size());
    std::atomic<std::size_t> next{0};
    parallel(n_threads, [&](int thread) {
        Buffer& buffer = buffers[static_cast<std::size_t>(thread)];
        buffer.clear();
        Accumulator* sums = accumulators.take(task.n_words);
        for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items.size();) {
            check_interrupt();
            const Traced traced("count rows", static_cast<std::int64_t>(i), thread);
            const CountItem& item = items[i];
            if (item.parts > 1) {
                each_near(item.row, item.begin, item.end,
                          [&](std::int32_t column, std::uint64_t weight) { sums->add(column, weight); });
                sums->parts = 1;
                std::atomic<Accumulator*>& other = parked[static_cast<std::size_t>(item.split)];
                while (sums->parts < item.parts) {
                    if (Accumulator* const found = other.exchange(nullptr, std::memory_order_acq_rel)) {
                        sums->absorb(*found);
                        accumulators.give_back(found);
                        continue;
                    }
                    Accumulator* none = nullptr;
                    if (other.compare_exchange_strong(none, sums, std::memory_order_acq_rel)) {
                        sums = nullptr;
                        break;
                    }
                }
                if (sums == nullptr) {
                    sums = accumulators.take(task.n_words);
                    continue;
                }
                sums->parts = 0;
            }
            std::int64_t room = 0;
            for (std::int32_t row = item.row; row < item.end_row; ++row) room += most(task, places, row);
            buffer.reserve(room);
            Result& result = results[i];
            result = {buffer.columns(), buffer.values()};
            for (std::int32_t row = item.row; row < item.end_row; ++row) {
                std::int32_t* const row_columns = buffer.columns();
                std::int64_t n_columns = 0;
                if (item.parts == 1 && most(task, places, row) < sums->few()) {
                    each_near(row, 0, places.count(row), [&](std::int32_t column, std::uint64_t weight) {
                        if (sums->add(column, weight)) row_columns[n_columns++] = column;
                    });
                    sums->take(row_columns, n_columns, buffer.values());
                } else {
                    if (item.parts == 1) {
                        each_near(row, 0, places.count(row),
                                  [&](std::int32_t column, std::uint64_t weight) { sums->add(column, weight); });
                    }
                    n_columns = sums->take(row_columns, buffer.values());
                }
                lengths[row - first] = n_columns;
                buffer.keep(n_columns);
                result.size += n_columns;
            }
        }
        accumulators.give_back(sums);
    });

    std::vector<std::int64_t> begins{0};
    for (const Result& result : results) begins.push_back(begins.back() + result.size);
    next = 0;
    parallel(n_threads, [&](int thread) {
        for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items.size();) {
            const Traced traced("copy rows", static_cast<std::int64_t>(i), thread);
            std::copy_n(results[i].columns, results[i].size, columns + begins[i]);
            std::copy_n(results[i].values, results[i].size, values + begins[i]);
        }
    });
    kept = std::move(space);
    return begins.back();
}

}  // namespace firth
