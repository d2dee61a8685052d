// Character n-grams of words and their hashes, as in fastText (Bojanowski et al. 2017, section 3.2), so that its files
// can be read and written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace firth {

// Lengths of n-grams: min_n to max_n characters; none if max_n is 0. Each is hashed to one of `buckets` rows.
struct Subwords {
    int min_n;
    int max_n;
    std::uint32_t buckets;
};

// 32-bit FNV-1a with one difference: fastText's first releases used signed chars, and all readers of their files must
// do the same. So a byte above 0x7F also flips the upper 24 bits.
constexpr std::uint32_t kHashStart = 2166136261u;
constexpr std::uint32_t hash_byte(std::uint32_t hash, char byte) {
    return (hash ^ static_cast<std::uint32_t>(static_cast<std::int32_t>(static_cast<signed char>(byte)))) * 16777619u;
}
constexpr std::uint32_t hash_word(std::string_view word) {
    std::uint32_t hash = kHashStart;
    for (const char byte : word) hash = hash_byte(hash, byte);
    return hash;
}

// The n-grams of a word between its marks, "<word>", ordered by their first character, then by length. The marks alone
// are not n-grams, and the word "</s>" has none.
std::vector<std::string> split_subwords(std::string_view word, const Subwords& subwords);

// offsets: (n + 1) where the buckets of each word's n-grams begin, in the order of split_subwords.
void count_subwords(const std::vector<std::string_view>& words, const Subwords& subwords, int n_threads,
                    std::int64_t* offsets);
// out: (offsets[n]) those buckets.
void find_subwords(const std::vector<std::string_view>& words, const Subwords& subwords, const std::int64_t* offsets,
                   int n_threads, std::uint32_t* out);

}  // namespace firth
