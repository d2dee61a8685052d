// Words numbered in the order of their first appearance, and counted: open addressing, linear probing.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/pages.hpp"

namespace firth {

// A word prepared for look-up. A word of up to 16 bytes is its own key, padded with zeros, so that comparing reads no
// other memory. For a longer word, first is the hash and second the address of its bytes.
struct WordKey {
    std::uint64_t first;
    std::uint64_t second;
    std::uint64_t hash;
    std::uint32_t length;  // in bytes
};

constexpr std::uint32_t kInlineBytes = 16;

inline std::uint64_t hash_pair(std::uint64_t first, std::uint64_t second, std::uint32_t length) {
    // The constants are not UTF-8, so no word makes a factor zero.
    const auto product = static_cast<unsigned __int128>(first ^ 0xFBD3C1A5F7E9FF8DULL) *
                         (second ^ 0xF5A1E3FF9BC7D3E1ULL ^ static_cast<std::uint64_t>(length) << 32);
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline WordKey inline_key(std::uint64_t first, std::uint64_t second, std::uint32_t length) {
    return {first, second, hash_pair(first, second, length), length};
}

// The bytes must stay valid until the word has been looked up.
WordKey word_key(std::string_view word);

class WordTable {
  public:
    struct Entry {
        std::uint64_t first, second;  // as in WordKey
        std::uint32_t length;
        std::uint32_t number;  // 1 + id; 0: a free slot
        std::int64_t count;
    };
    static_assert(sizeof(Entry) == 32);  // never across two cache lines

    std::size_t size() const { return size_; }
    std::size_t slots() const { return mask_ + 1; }

    // Makes room for n more words.
    void reserve(std::size_t n) {
        if (3 * (size_ + n) > 2 * slots() || !entries_) grow(size_ + n);
    }
    void prefetch(const WordKey& key) const { __builtin_prefetch(entries_ + (key.hash >> shift_), 1); }

    // Adds `count` to a word, which may be new (reserve first), and returns its id.
    std::uint32_t add(const WordKey& key, std::int64_t count) {
        Entry& entry = entries_[slot_of(key)];
        if (entry.number == 0) insert(entry, key);
        entry.count += count;
        return entry.number - 1;
    }
    // The id of a word, or -1.
    std::int64_t find(const WordKey& key) const {
        return entries_ ? static_cast<std::int64_t>(entries_[slot_of(key)].number) - 1 : -1;
    }

    // Moves the words of another table to this one; ids[its id] = id here.
    void absorb(WordTable& other, std::vector<std::int32_t>& ids);

    // Calls visit(entry) for every word, in any order.
    template <class Visit>
    void for_each(Visit&& visit) {
        for (Entry* entry = entries_; entry && entry != entries_ + slots(); ++entry) {
            if (entry->number != 0) visit(*entry);
        }
    }
    static std::string_view text(const Entry& entry) {
        return {entry.length <= kInlineBytes ? reinterpret_cast<const char*>(&entry.first)
                                             : reinterpret_cast<const char*>(entry.second),
                entry.length};
    }

  private:
    // Where a word is or belongs. Slots are ordered by the high bits of the hash, so that copying one table to another
    // goes from front to back in both.
    std::size_t slot_of(const WordKey& key) const {
        std::size_t slot = key.hash >> shift_;
        while (entries_[slot].number != 0 && !same(entries_[slot], key)) slot = (slot + 1) & mask_;
        return slot;
    }
    static bool same(const Entry& entry, const WordKey& key) {
        if (entry.first != key.first || entry.length != key.length) return false;
        if (key.length <= kInlineBytes) return entry.second == key.second;
        return std::memcmp(reinterpret_cast<const char*>(entry.second), reinterpret_cast<const char*>(key.second),
                           key.length) == 0;
    }
    static WordKey key_of(const Entry& entry) {
        if (entry.length <= kInlineBytes) return inline_key(entry.first, entry.second, entry.length);
        return {entry.first, entry.second, entry.first, entry.length};
    }
    void insert(Entry& entry, const WordKey& key);
    void grow(std::size_t n);

    Pages memory_;
    Entry* entries_ = nullptr;
    std::size_t mask_ = 0;  // slots - 1
    int shift_ = 63;        // 64 - log2(slots)
    std::size_t size_ = 0;
    std::vector<std::unique_ptr<char[]>> texts_;  // bytes of the words too long for their entry
    char* free_ = nullptr;
    std::size_t free_bytes_ = 0;
};

}  // namespace firth
