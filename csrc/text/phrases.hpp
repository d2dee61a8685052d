// Merges phrases into single words: rewrites documents of ids by a table of phrases.
#pragma once

#include <cstdint>
#include <vector>

namespace firth {

// Documents as Corpus has them: document d is ids[offsets[d]] .. ids[offsets[d + 1]].
struct Documents {
    const std::int32_t* ids;      // (n_tokens)
    const std::int64_t* offsets;  // (n_documents + 1)
    std::int64_t n_documents;
};

// The words of phrases as a trie in one hash table: from a state and a word to a target. A state is the id of a
// phrase's first word, or a number of its own after more words. A target is the phrase's id if it ends there, or ~state
// if it continues.
class PhraseTable {
  public:
    static constexpr std::int32_t kNone = INT32_MIN;

    // states, words, targets: (n). Pairs of state and word are unique and not negative; states are below INT32_MAX.
    PhraseTable(const std::int32_t* states, const std::int32_t* words, const std::int32_t* targets, std::int64_t n,
                std::int32_t n_words);

    std::int32_t n_words() const { return n_words_; }
    // Whether a phrase begins with this word. Most words need no look-up.
    bool starts(std::int32_t word) const {
        return (starts_[static_cast<std::size_t>(word) >> 6] >> (word & 63) & 1) != 0;
    }
    std::int32_t find(std::int32_t state, std::int32_t word) const {
        const std::uint64_t key = key_of(state, word);
        for (std::size_t slot = slot_of(key);; slot = (slot + 1) & (slots_.size() - 1)) {
            if (slots_[slot].key == key) return slots_[slot].target;
            if (slots_[slot].key == kEmpty) return kNone;
        }
    }

  private:
    static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
    struct Slot {
        std::uint64_t key = kEmpty;
        std::int32_t target = kNone;
    };

    static std::uint64_t key_of(std::int32_t state, std::int32_t word) {
        return static_cast<std::uint64_t>(state) << 32 | static_cast<std::uint32_t>(word);
    }
    // The upper bits of a product by 2^64 / golden ratio (Knuth's multiplicative hashing).
    std::size_t slot_of(std::uint64_t key) const { return (key * 0x9E3779B97F4A7C15ULL) >> shift_; }

    std::int32_t n_words_;
    int shift_;
    std::vector<Slot> slots_;
    std::vector<std::uint64_t> starts_;
};

// Writes each document with its phrases as single ids. Phrases are found from left to right, the shortest first, and do
// not overlap. out: (n_tokens), which may be `ids`; out_offsets: (n_documents + 1), which must not be `offsets`.
// Returns how many ids there are. Throws std::invalid_argument if an id is not below the table's n_words.
std::int64_t merge_phrases(const Documents& documents, const PhraseTable& table, std::int32_t* out,
                           std::int64_t* out_offsets, int n_threads);

// Writes new_ids[id] for each id, and drops ids where it is negative. Arrays and result as above.
std::int64_t renumber(const Documents& documents, const std::int32_t* new_ids, std::int32_t n_words, std::int32_t* out,
                      std::int64_t* out_offsets, int n_threads);

}  // namespace firth
