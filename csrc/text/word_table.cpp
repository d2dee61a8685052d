#include "text/word_table.hpp"

#include <algorithm>
#include <stdexcept>

namespace firth {
namespace {

constexpr std::size_t kFirstSlots = std::size_t{1} << 13;
constexpr std::size_t kMostWords = 0x7FFFFFFF;  // ids are int32
constexpr std::size_t kChunk = std::size_t{1} << 16;

}  // namespace

WordKey word_key(std::string_view word) {
    if (word.size() >= (std::uint64_t{1} << 32)) throw std::length_error("a word is longer than 4 GiB");
    const auto length = static_cast<std::uint32_t>(word.size());
    std::uint64_t pair[2] = {0, 0};
    if (length <= kInlineBytes) {
        if (length > 0) std::memcpy(pair, word.data(), length);
        return inline_key(pair[0], pair[1], length);
    }
    std::uint64_t hash = length;
    for (std::size_t i = 0; i < length; i += 16) {
        // The last 16 bytes overlap those before them.
        std::memcpy(pair, word.data() + std::min<std::size_t>(i, length - 16), 16);
        hash = hash_pair(pair[0] ^ hash, pair[1], length);
    }
    return {hash, reinterpret_cast<std::uint64_t>(word.data()), hash, length};
}

void WordTable::insert(Entry& entry, const WordKey& key) {
    if (size_ >= kMostWords) throw std::length_error("more than 2^31 - 1 different words");
    std::uint64_t second = key.second;
    if (key.length > kInlineBytes) {
        if (key.length > free_bytes_) {
            const std::size_t bytes = std::max<std::size_t>(kChunk, key.length);
            texts_.emplace_back(new char[bytes]);
            free_ = texts_.back().get();
            free_bytes_ = bytes;
        }
        std::memcpy(free_, reinterpret_cast<const char*>(key.second), key.length);
        second = reinterpret_cast<std::uint64_t>(free_);
        free_ += key.length;
        free_bytes_ -= key.length;
    }
    entry = {key.first, second, key.length, static_cast<std::uint32_t>(++size_), 0};
}

void WordTable::grow(std::size_t n) {
    std::size_t slots = kFirstSlots;
    int shift = 64 - 13;
    while (3 * n > 2 * slots) {
        slots *= 2;
        --shift;
    }
    WordTable larger;
    larger.memory_ = Pages(slots * sizeof(Entry));
    larger.entries_ = larger.memory_.as<Entry>();
    larger.mask_ = slots - 1;
    larger.shift_ = shift;
    for_each([&](const Entry& entry) { larger.entries_[larger.slot_of(key_of(entry))] = entry; });
    memory_ = std::move(larger.memory_);
    entries_ = larger.entries_;
    mask_ = larger.mask_;
    shift_ = shift;
}

void WordTable::absorb(WordTable& other, std::vector<std::int32_t>& ids) {
    // All room first: adding in the order of the hashes would overfill the front of a table that still has to
    // grow.
    reserve(other.size_);
    ids.resize(other.size_);
    other.for_each([&](const Entry& entry) {
        Entry& here = entries_[slot_of(key_of(entry))];
        if (here.number == 0) {
            if (size_ >= kMostWords) throw std::length_error("more than 2^31 - 1 different words");
            here = entry;
            here.number = static_cast<std::uint32_t>(++size_);
        } else {
            here.count += entry.count;
        }
        ids[entry.number - 1] = static_cast<std::int32_t>(here.number - 1);
    });
    std::move(other.texts_.begin(), other.texts_.end(), std::back_inserter(texts_));
    other = WordTable();
}

}  // namespace firth
