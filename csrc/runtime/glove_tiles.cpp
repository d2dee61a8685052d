#include "runtime/glove_tiles.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
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

constexpr std::int64_t kFewEntries = 1 << 22;  // the memory of so few does not matter
constexpr float kLeast = std::numeric_limits<float>::min(), kMost = std::numeric_limits<float>::max();

// Where blocks of about equal non-zeros begin; begins (n + 1) is how many lie before each row, or column. Within a
// block 16 bits distinguish them.
std::vector<std::int32_t> cut(const std::int64_t* begins, std::int32_t n) {
    std::int64_t wanted = kGloveLeastBlocks;
    while (wanted < kGloveMostBlocks && wanted * wanted * kGloveTileEntries < begins[n]) ++wanted;
    std::vector<std::int32_t> cuts{0};
    for (std::int32_t row = 1; row < n; ++row) {
        const auto blocks = static_cast<std::int64_t>(cuts.size());
        if (begins[row] * wanted >= begins[n] * blocks || row - cuts.back() > 0xFFFF) cuts.push_back(row);
    }
    cuts.push_back(n);
    return cuts;
}

void shuffle(std::vector<std::uint32_t>& numbers, std::uint64_t key) {
    for (std::size_t i = numbers.size(); i > 1; --i) {
        std::swap(numbers[i - 1], numbers[random_below(random_at(key, i), static_cast<std::uint32_t>(i))]);
    }
}

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
    : seed_(seed), size_(begins[n]), n_words_(n), entries_(static_cast<std::size_t>(begins[n]) * sizeof(GloveEntry)) {
    const std::vector<std::int32_t> column_cuts = cut(check_and_count(begins, columns, values, n, n_threads).data(), n);
    const std::vector<std::int32_t> row_cuts = cut(begins, n);
    const std::size_t row_blocks = row_cuts.size() - 1, column_blocks = column_cuts.size() - 1;
    row_blocks_ = static_cast<std::int32_t>(row_blocks);
    column_blocks_ = static_cast<std::int32_t>(column_blocks);
    const std::vector<std::uint16_t> block_of = blocks_of(column_cuts);
    auto* const entries = entries_.as<GloveEntry>();
    const std::uint64_t key = random_key(seed, 1);
    std::vector<std::vector<GloveSlice>> slices(row_blocks);
    std::atomic<std::size_t> next{0};
    parallel(n_threads, [&](int) {
        std::vector<std::int64_t> sizes(column_blocks);
        std::vector<std::uint32_t> first(column_blocks),
            dealt(column_blocks);      // of each tile: its first slice, and how many slices
        std::vector<std::int64_t> at;  // where a slice's next entry goes
        for (std::size_t b; (b = next++) < row_blocks;) {
            check_interrupt();
            const std::int64_t begin = begins[row_cuts[b]], end = begins[row_cuts[b + 1]];
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
                    slices[b].push_back({static_cast<std::int32_t>(b), static_cast<std::int32_t>(tile), row_cuts[b],
                                         column_cuts[tile], at[slice], at[slice + 1]});
                }
            }
            std::int64_t i = begin;
            for (std::int32_t row = row_cuts[b]; row < row_cuts[b + 1]; ++row) {
                for (; i < begins[row + 1]; ++i) {
                    const auto column = static_cast<std::int32_t>(columns[i]);
                    const std::int32_t first_column = column_cuts[block_of[static_cast<std::size_t>(column)]];
                    entries[at[slice_of(i)]++] = {static_cast<std::uint16_t>(row - row_cuts[b]),
                                                  static_cast<std::uint16_t>(column - first_column), values[i]};
                }
            }
        }
    });
    for (const auto& of_block : slices) slices_.insert(slices_.end(), of_block.begin(), of_block.end());
    make_rounds();
}

template GloveTiles::GloveTiles(const std::int64_t*, const std::int32_t*, const float*, std::int32_t, std::uint64_t,
                                int);
template GloveTiles::GloveTiles(const std::int64_t*, const std::int64_t*, const float*, std::int32_t, std::uint64_t,
                                int);

void GloveTiles::make_rounds() {
    const auto n = static_cast<std::uint32_t>(slices_.size());
    std::vector<std::uint32_t> shuffled(n);
    std::iota(shuffled.begin(), shuffled.end(), 0u);
    shuffle(shuffled, random_key(seed_, 2));
    // A bit for each round in which a block already has a slice. First fit needs less than twice as many rounds as a
    // block has slices.
    std::vector<std::size_t> of_rows(static_cast<std::size_t>(row_blocks_)),
        of_columns(static_cast<std::size_t>(column_blocks_));
    std::size_t most = 0;
    for (const GloveSlice& slice : slices_) {
        most = std::max(most, ++of_rows[static_cast<std::size_t>(slice.row_block)]);
        most = std::max(most, ++of_columns[static_cast<std::size_t>(slice.column_block)]);
    }
    const std::size_t words = 2 * most / 64 + 1;
    std::vector<std::uint64_t> rows_taken(of_rows.size() * words), columns_taken(of_columns.size() * words);
    std::vector<std::uint32_t> round_of(n);
    std::vector<std::uint32_t> sizes;  // of the rounds
    for (const std::uint32_t number : shuffled) {
        std::uint64_t* const row = rows_taken.data() + static_cast<std::size_t>(slices_[number].row_block) * words;
        std::uint64_t* const column =
            columns_taken.data() + static_cast<std::size_t>(slices_[number].column_block) * words;
        std::size_t word = 0;
        while ((row[word] | column[word]) == ~std::uint64_t{0}) ++word;
        const int bit = std::countr_one(row[word] | column[word]);
        row[word] |= std::uint64_t{1} << bit;
        column[word] |= std::uint64_t{1} << bit;
        const std::size_t round = word * 64 + static_cast<std::size_t>(bit);
        if (round == sizes.size()) sizes.push_back(0);
        ++sizes[round];
        round_of[number] = static_cast<std::uint32_t>(round);
    }
    for (const std::uint32_t size : sizes) round_begins_.push_back(round_begins_.back() + size);
    std::vector<std::uint32_t> next(round_begins_.begin(), round_begins_.end() - 1);
    std::vector<GloveSlice> sorted(n);
    for (const std::uint32_t number : shuffled) sorted[next[round_of[number]]++] = slices_[number];
    slices_ = std::move(sorted);
}

void GloveTiles::order(std::uint64_t epoch) {
    epoch_ = epoch;
    std::vector<std::uint32_t> rounds(round_begins_.size() - 1);
    std::iota(rounds.begin(), rounds.end(), 0u);
    shuffle(rounds, random_key(seed_, 3 + epoch));
    order_.clear();
    begins_.assign(1, 0);
    for (const std::uint32_t round : rounds) {
        for (std::uint32_t slice = round_begins_[round]; slice < round_begins_[round + 1]; ++slice) {
            order_.push_back(slice);
            begins_.push_back(begins_.back() + slices_[slice].end - slices_[slice].begin);
        }
    }
}

GloveSlices GloveTiles::slices(std::int64_t begin, std::int64_t end, std::uint64_t epoch) {
    if (epoch != epoch_) order(epoch);
    const auto first = std::lower_bound(begins_.begin(), begins_.end() - 1, begin) - begins_.begin();
    const auto last = std::lower_bound(begins_.begin(), begins_.end() - 1, end) - begins_.begin();
    return {
        entries_.as<GloveEntry>(), slices_.data(), order_.data() + first, last - first, row_blocks_, column_blocks_};
}

}  // namespace firth
