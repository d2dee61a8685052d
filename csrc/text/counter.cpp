#include "text/counter.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <stdexcept>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "runtime/threads.hpp"
#include "text/utf8.hpp"

namespace firth {
namespace {

constexpr std::size_t kLargestPiece = std::size_t{1} << 30;  // so that positions in a segment fit 32 bits
constexpr int kBatch = 64;                                   // words between a prefetch and its look-up
constexpr std::size_t kScratch = std::size_t{1} << 16;
constexpr std::uint64_t kOnes = 0x0101010101010101ULL;
constexpr std::uint64_t kHighs = 0x8080808080808080ULL;

// 16 bytes from [16 - n] on keep the first n of 16.
constexpr auto kMask = [] {
    std::array<unsigned char, 32> mask{};
    for (std::size_t i = 0; i < 16; ++i) mask[i] = 0xFF;
    return mask;
}();

// Bit i is set if p[i] separates words: ASCII white space, or any ASCII character but letters, digits and underscore.
// Bytes beyond ASCII are never set: they are decoded with their word.
template <bool kWords>
std::uint64_t separators(const char* p) {
    std::uint64_t mask = 0;
#if defined(__SSE2__)
    const auto within = [](__m128i x, char low, char span) {
        const __m128i y = _mm_sub_epi8(x, _mm_set1_epi8(low));
        return _mm_cmpeq_epi8(_mm_min_epu8(y, _mm_set1_epi8(span)), y);
    };
    for (int i = 0; i < 64; i += 16) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i));
        std::uint32_t bits;
        if constexpr (kWords) {
            const __m128i letter = within(_mm_or_si128(x, _mm_set1_epi8(0x20)), 'a', 25);
            const __m128i other = _mm_or_si128(within(x, '0', 9), _mm_cmpeq_epi8(x, _mm_set1_epi8('_')));
            const __m128i inside = _mm_or_si128(x, _mm_or_si128(letter, other));  // only the highest bit counts
            bits = static_cast<std::uint32_t>(_mm_movemask_epi8(inside)) ^ 0xFFFFu;
        } else {
            bits = static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_or_si128(within(x, 9, 4), within(x, 28, 4))));
        }
        mask |= static_cast<std::uint64_t>(bits) << i;
    }
#else
    static constexpr auto table = [] {
        const auto in_word = [](unsigned c) {
            return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        };
        std::array<unsigned char, 256> separates{};
        for (unsigned char c = 0; c < 128; ++c) separates[c] = kWords ? !in_word(c) : is_ascii_space(c);
        return separates;
    }();
    for (int i = 0; i < 64; ++i) mask |= static_cast<std::uint64_t>(table[static_cast<unsigned char>(p[i])]) << i;
#endif
    return mask;
}

// Lower-cases ASCII letters, eight bytes at once.
std::uint64_t lower_ascii(std::uint64_t x) {
    const std::uint64_t seven = x & ~kHighs;
    const std::uint64_t from_a = seven + (128 - 'A') * kOnes, beyond_z = seven + (128 - 'Z' - 1) * kOnes;
    return x | (((from_a ^ beyond_z) & ~x & kHighs) >> 2);
}

// Finds the words of one share and looks them up in batches, so that the table's memory is prefetched before it is
// needed.
template <bool kWords>
class Scanner {
  public:
    Scanner(const std::vector<std::uint32_t>& lower, WordTable& table, std::uint32_t* out,
            std::vector<std::uint32_t>& ends, const char* readable_end)
        : lower_(lower), table_(table), out_(out), ends_(ends), readable_end_(readable_end) {
        table_.reserve(kBatch);
    }

    void scan(const char* begin, const char* end) {
        begin_ = begin;
        const char* start = begin;
        for (const char* base = begin; base < end; base += 64) {
            std::uint64_t mask;
            if (end - base >= 64) {
                mask = separators<kWords>(base);
            } else {
                const auto n = static_cast<std::size_t>(end - base);
                char tail[64] = {};
                std::memcpy(tail, base, n);
                mask = separators<kWords>(tail) & ((std::uint64_t{1} << n) - 1);
            }
            for (; mask != 0; mask &= mask - 1) {
                const char* p = base + std::countr_zero(mask);
                if (p != start) run(start, static_cast<std::size_t>(p - start));
                start = p + 1;
                if (*p == '\n') ends_.push_back(static_cast<std::uint32_t>(tokens()));
            }
        }
        if (start != end) run(start, static_cast<std::size_t>(end - start));
        flush();
    }

    std::size_t tokens() const { return flushed_ + static_cast<std::size_t>(waiting_); }
    std::int64_t invalid = 0;
    std::optional<InvalidAt> first_invalid;

  private:
    // The bytes between two ASCII separators: one word if all are ASCII.
    void run(const char* p, std::size_t n) {
        if (n <= kInlineBytes) {
            std::uint64_t pair[2];
            load(pair, p, n);
            if (((pair[0] | pair[1]) & kHighs) == 0) {
                if constexpr (kWords) {
                    pair[0] = lower_ascii(pair[0]);
                    pair[1] = lower_ascii(pair[1]);
                }
                push(inline_key(pair[0], pair[1], static_cast<std::uint32_t>(n)));
                return;
            }
        }
        make_room(n);
        if constexpr (kWords) {
            run_of_words(p, p + n);
        } else {
            run_of_text(p, p + n);
        }
    }

    // pair = the n <= 16 bytes at p, then zeros.
    void load(std::uint64_t pair[2], const char* p, std::size_t n) const {
        if (p + 16 <= readable_end_) {
            std::memcpy(pair, p, 16);
            // A branch on the length would be mispredicted for every fourth word.
            std::uint64_t mask[2];
            std::memcpy(mask, kMask.data() + 16 - n, 16);
            pair[0] &= mask[0];
            pair[1] &= mask[1];
        } else {
            pair[0] = pair[1] = 0;
            std::memcpy(pair, p, n);
        }
    }

    // White space beyond ASCII also separates words. Invalid bytes become U+FFFD, in a copy of the word.
    void run_of_text(const char* p, const char* end) {
        const char* word = p;  // the part of the current word that is not yet copied
        char* copy = nullptr;  // where its copy begins, if it needs one
        const auto finish = [&](const char* word_end) {
            if (copy) {
                scratch_end_ = std::copy(word, word_end, scratch_end_);
                emit(copy, static_cast<std::size_t>(scratch_end_ - copy));
            } else if (word != word_end) {
                emit(word, static_cast<std::size_t>(word_end - word));
            }
            copy = nullptr;
        };
        while (p != end) {
            if (static_cast<unsigned char>(*p) < 0x80) {
                ++p;
                continue;
            }
            const Utf8Character c = read_utf8(p, end);
            if (!c.valid) {
                note_invalid(p);
                if (!copy) copy = scratch_end_;
                scratch_end_ = write_utf8(std::copy(word, p, scratch_end_), 0xFFFD);
                word = p + c.length;
            } else if (is_wide_space(c.code)) {
                finish(p);
                word = p + c.length;
            }
            p += c.length;
        }
        finish(end);
    }

    // Lower-cased words of word characters. An invalid sequence separates words.
    void run_of_words(const char* p, const char* end) {
        char* word = scratch_end_;
        while (p != end) {
            const Utf8Character c = read_utf8(p, end);
            if (!c.valid) note_invalid(p);
            const std::uint32_t lower = c.valid && c.code < lower_.size() ? lower_[c.code] : 0;
            if (lower != 0) {
                scratch_end_ = write_utf8(scratch_end_, lower);
            } else if (word != scratch_end_) {
                emit(word, static_cast<std::size_t>(scratch_end_ - word));
                word = scratch_end_;
            }
            p += c.length;
        }
        if (word != scratch_end_) emit(word, static_cast<std::size_t>(scratch_end_ - word));
    }

    void note_invalid(const char* p) {
        ++invalid;
        if (!first_invalid) first_invalid = {p - begin_, static_cast<std::int64_t>(ends_.size())};
    }

    // Makes room in scratch for the result of a run of n bytes: at most three bytes for each invalid one. Words that
    // wait to be looked up may be in scratch.
    void make_room(std::size_t n) {
        const std::size_t need = 3 * n;
        if (scratch_.size() - static_cast<std::size_t>(scratch_end_ - scratch_.data()) >= need) return;
        flush();
        if (scratch_.size() < need) scratch_.resize(std::max(need, kScratch));
        scratch_end_ = scratch_.data();
    }

    void emit(const char* p, std::size_t n) { push(word_key({p, n})); }

    void push(const WordKey& key) {
        table_.prefetch(key);
        batch_[waiting_] = key;
        if (++waiting_ == kBatch) flush();
    }

    void flush() {
        table_.reserve(static_cast<std::size_t>(waiting_));
        for (int i = 0; i < waiting_; ++i) out_[flushed_++] = table_.add(batch_[i], 1);
        waiting_ = 0;
    }

    const std::vector<std::uint32_t>& lower_;
    WordTable& table_;
    std::uint32_t* out_;
    std::vector<std::uint32_t>& ends_;
    const char* readable_end_;  // loads may run over a word's end, not over this
    const char* begin_ = nullptr;
    std::size_t flushed_ = 0;
    WordKey batch_[kBatch];
    int waiting_ = 0;
    std::vector<char> scratch_;
    char* scratch_end_ = nullptr;
};

}  // namespace

TextCounter::TextCounter(TokenizerTable tokenizer, int threads, std::int64_t min_share)
    : tokenizer_(std::move(tokenizer)),
      threads_(threads),
      min_share_(min_share),
      tables_(static_cast<std::size_t>(threads)) {}

void TextCounter::require_feeding() const {
    if (state_ != State::feeding) throw std::logic_error("the text is merged: nothing more can be fed");
}

void TextCounter::begin_file(std::int64_t offset) {
    require_feeding();
    if (line_open_) end_file();
    position_ = offset;
    line_ = 0;
    first_invalid_.reset();
}

void TextCounter::feed(const char* data, std::size_t n) {
    require_feeding();
    for (; n > 0;) {
        const std::size_t piece = std::min(n, kLargestPiece);
        feed_piece(data, piece);
        data += piece;
        n -= piece;
    }
}

// Text is cut after ASCII white space: no word, line or character of several bytes continues there.
void TextCounter::feed_piece(const char* data, std::size_t n) {
    const char* const end = data + n;
    const auto space = [](char c) { return is_ascii_space(static_cast<unsigned char>(c)); };
    const char* last = end;
    while (last != data && !space(last[-1])) --last;
    line_open_ = end[-1] != '\n';
    if (last != data && !carry_.empty()) {
        const char* first = std::find_if(data, last, space) + 1;
        carry_.append(data, first);
        // A carry is scanned as any other share.
        scan(carry_.data(), carry_.data() + carry_.size(), 1,
             position_ + (first - data) - static_cast<std::int64_t>(carry_.size()));
        carry_.clear();
        position_ += first - data;
        data = first;
    }
    if (last != data) {
        const std::int64_t shares = std::clamp<std::int64_t>((last - data) / min_share_, 1, threads_);
        scan(data, last, static_cast<int>(shares), position_);
    }
    if (carry_.size() + static_cast<std::size_t>(end - last) >= 4 * kLargestPiece) {
        throw std::length_error("4 GiB of text without any white space");
    }
    carry_.append(last, end);
    position_ += end - data;
}

void TextCounter::end_file() {
    require_feeding();
    if (!carry_.empty()) {
        scan(carry_.data(), carry_.data() + carry_.size(), 1, position_ - static_cast<std::int64_t>(carry_.size()));
        carry_.clear();
    }
    if (!line_open_) return;
    Segment& segment = segments_.back();
    segment.ends.push_back(static_cast<std::uint32_t>(segment.tokens));
    ++documents_;
    line_open_ = false;
}

void TextCounter::scan(const char* begin, const char* end, int shares, std::int64_t offset) {
    std::vector<const char*> cuts{begin};
    for (int i = 1; i < shares; ++i) {
        const char* cut = std::max(begin + (end - begin) * i / shares, cuts.back());
        while (cut != end && !is_ascii_space(static_cast<unsigned char>(*cut))) ++cut;
        cuts.push_back(cut == end ? end : cut + 1);
    }
    cuts.push_back(end);
    std::vector<Scanned> scanned(static_cast<std::size_t>(shares));
    parallel(shares, [&](int share) {
        const auto i = static_cast<std::size_t>(share);
        scanned[i] = scan_share(cuts[i], cuts[i + 1], end, share);
    });
    for (std::size_t i = 0; i < scanned.size(); ++i) {
        Scanned& share = scanned[i];
        if (share.first_invalid && !first_invalid_) {
            first_invalid_ = {offset + (cuts[i] - begin) + share.first_invalid->byte,
                              line_ + share.first_invalid->line};
        }
        invalid_ += share.invalid;
        tokens_ += share.segment.tokens;
        line_ += static_cast<std::int64_t>(share.segment.ends.size());
        documents_ += static_cast<std::int64_t>(share.segment.ends.size());
        segments_.push_back(std::move(share.segment));
    }
}

TextCounter::Scanned TextCounter::scan_share(const char* begin, const char* end, const char* readable_end, int table) {
    Scanned scanned{};
    Segment& segment = scanned.segment;
    segment.table = table;
    // At most one word for every two bytes. Memory that is not filled is never touched.
    segment.ids = Pages((static_cast<std::size_t>(end - begin) / 2 + 1) * sizeof(std::uint32_t));
    const auto scan_with = [&](auto scanner) {
        scanner.scan(begin, end);
        segment.tokens = static_cast<std::int64_t>(scanner.tokens());
        scanned.invalid = scanner.invalid;
        scanned.first_invalid = scanner.first_invalid;
    };
    WordTable& words = tables_[static_cast<std::size_t>(table)];
    if (tokenizer_.lower.empty()) {
        scan_with(Scanner<false>(tokenizer_.lower, words, segment.ids.as<std::uint32_t>(), segment.ends, readable_end));
    } else {
        scan_with(Scanner<true>(tokenizer_.lower, words, segment.ids.as<std::uint32_t>(), segment.ends, readable_end));
    }
    segment.ids.keep(static_cast<std::size_t>(segment.tokens) * sizeof(std::uint32_t));
    segment.ends.shrink_to_fit();
    return scanned;
}

void TextCounter::feed_tokens(const std::vector<std::string_view>& new_words, const std::int32_t* ids, std::int64_t n,
                              const std::int64_t* ends, std::int64_t n_documents) {
    require_feeding();
    if (n >= (1LL << 32)) throw std::invalid_argument("more than 2^32 - 1 tokens at once; feed them in blocks");
    std::int64_t before = 0;
    for (std::int64_t i = 0; i < n_documents; ++i) {
        if (ends[i] < before || ends[i] > n) throw std::invalid_argument("ends must be sorted, and within the ids");
        before = ends[i];
    }
    WordTable& words = tables_[0];
    words.reserve(new_words.size());
    for (const std::string_view word : new_words) {
        if (words.add(word_key(word), 0) != token_counts_.size()) {
            throw std::invalid_argument("new words must be new: " + std::string(word));
        }
        token_counts_.push_back(0);
    }
    Segment segment{0, Pages(static_cast<std::size_t>(n) * sizeof(std::uint32_t)), n, {ends, ends + n_documents}};
    auto* out = segment.ids.as<std::uint32_t>();
    for (std::int64_t i = 0; i < n; ++i) {
        const auto id = static_cast<std::uint32_t>(ids[i]);
        if (id >= token_counts_.size())
            throw std::invalid_argument("ids must be below the number of words given so far");
        ++token_counts_[id];
        out[i] = id;
    }
    tokens_ += n;
    documents_ += n_documents;
    segments_.push_back(std::move(segment));
}

std::int64_t TextCounter::merge() {
    if (state_ == State::feeding) {
        end_file();
        WordTable& all = tables_[0];
        all.for_each([&](WordTable::Entry& entry) {
            if (entry.number <= token_counts_.size()) entry.count += token_counts_[entry.number - 1];
        });
        merged_ids_.resize(tables_.size());
        for (std::size_t i = 1; i < tables_.size(); ++i) all.absorb(tables_[i], merged_ids_[i]);
        all.for_each([&](const WordTable::Entry& entry) { largest_count_ = std::max(largest_count_, entry.count); });
        state_ = State::merged;
    }
    return static_cast<std::int64_t>(tables_[0].size());
}

void TextCounter::begin_selection() {
    merge();
    if (state_ != State::merged) throw std::logic_error("the words are selected already");
}

void TextCounter::select(std::int64_t min_count, std::int64_t most) {
    begin_selection();
    struct Candidate {
        std::int64_t count;
        std::uint64_t start;  // the first 8 bytes as a number with the same order
        const WordTable::Entry* entry;
    };
    std::vector<Candidate> candidates;
    tables_[0].for_each([&](const WordTable::Entry& entry) {
        if (entry.count < min_count) return;
        unsigned char start[8] = {};
        const std::string_view text = WordTable::text(entry);
        if (!text.empty()) std::memcpy(start, text.data(), std::min<std::size_t>(8, text.size()));
        std::uint64_t number = 0;
        for (const unsigned char byte : start) number = number << 8 | byte;
        candidates.push_back({entry.count, number, &entry});
    });
    std::sort(candidates.begin(), candidates.end(), [](const Candidate& x, const Candidate& y) {
        if (x.count != y.count) return x.count > y.count;
        if (x.start != y.start) return x.start < y.start;
        return WordTable::text(*x.entry) < WordTable::text(*y.entry);
    });
    if (most >= 0 && static_cast<std::int64_t>(candidates.size()) > most) {
        candidates.resize(static_cast<std::size_t>(most));
    }
    final_ids_.assign(tables_[0].size(), -1);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        const WordTable::Entry& entry = *candidates[i].entry;
        final_ids_[entry.number - 1] = static_cast<std::int32_t>(i);
        words_.push_back(WordTable::text(entry));
        counts_.push_back(entry.count);
        kept_tokens_ += entry.count;
    }
    state_ = State::selected;
}

void TextCounter::select(const std::vector<std::string_view>& words) {
    begin_selection();
    std::vector<std::int64_t> count_of(tables_[0].size());
    tables_[0].for_each([&](const WordTable::Entry& entry) { count_of[entry.number - 1] = entry.count; });
    final_ids_.assign(tables_[0].size(), -1);
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::int64_t id = tables_[0].find(word_key(words[i]));
        const std::int64_t count = id < 0 ? 0 : count_of[static_cast<std::size_t>(id)];
        if (id >= 0) final_ids_[static_cast<std::size_t>(id)] = static_cast<std::int32_t>(i);
        words_.push_back(words[i]);
        counts_.push_back(count);
        kept_tokens_ += count;
    }
    state_ = State::selected;
}

void TextCounter::write(std::int32_t* ids, std::int64_t* offsets) {
    if (state_ == State::written) throw std::logic_error("the ids are written already");
    if (state_ != State::selected) throw std::logic_error("no words are selected: their ids cannot be written");
    state_ = State::written;  // from here on: the numbers are replaced in place
    // Map each table's numbers directly to final ids.
    for (std::size_t i = 1; i < merged_ids_.size(); ++i) {
        for (std::int32_t& id : merged_ids_[i]) id = final_ids_[static_cast<std::size_t>(id)];
    }
    const auto for_each_segment = [&](auto&& work) {
        std::atomic<std::size_t> next{0};
        parallel(threads_, [&](int) {
            for (std::size_t i; (i = next++) < segments_.size();) {
                check_interrupt();
                work(i);
            }
        });
    };
    // First, kept tokens move together inside each segment. Then the size of each is known, and they are copied out.
    for_each_segment([&](std::size_t i) {
        Segment& segment = segments_[i];
        const std::int32_t* final_id =
            segment.table == 0 ? final_ids_.data() : merged_ids_[static_cast<std::size_t>(segment.table)].data();
        auto* id = segment.ids.as<std::uint32_t>();
        std::size_t from = 0, kept = 0;
        const auto move_up_to = [&](std::size_t end) {
            for (; from < end; ++from) {
                const std::int32_t to = final_id[id[from]];
                id[kept] = static_cast<std::uint32_t>(to);
                kept += to >= 0;
            }
        };
        for (std::uint32_t& end : segment.ends) {
            move_up_to(end);
            end = static_cast<std::uint32_t>(kept);
        }
        move_up_to(static_cast<std::size_t>(segment.tokens));
        segment.tokens = static_cast<std::int64_t>(kept);
        segment.ids.keep(kept * sizeof(std::uint32_t));
    });
    std::vector<std::int64_t> token_start, document_start;
    std::int64_t token = 0, document = 0;
    for (const Segment& segment : segments_) {
        token_start.push_back(token);
        document_start.push_back(document);
        token += segment.tokens;
        document += static_cast<std::int64_t>(segment.ends.size());
    }
    offsets[0] = 0;
    for_each_segment([&](std::size_t i) {
        Segment& segment = segments_[i];
        if (segment.tokens > 0) {
            std::memcpy(ids + token_start[i], segment.ids.as<void>(),
                        static_cast<std::size_t>(segment.tokens) * sizeof(std::int32_t));
        }
        for (std::size_t d = 0; d < segment.ends.size(); ++d) {
            offsets[document_start[i] + static_cast<std::int64_t>(d) + 1] = token_start[i] + segment.ends[d];
        }
        segment = Segment();
    });
    segments_.clear();
}

}  // namespace firth
