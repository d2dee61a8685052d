#include "text/subwords.hpp"

#include <algorithm>

#include "runtime/threads.hpp"

namespace firth {
namespace {

// The end of a sentence, which fastText counts as a word without n-grams.
constexpr std::string_view kEndOfSentence = "</s>";

// A byte that does not begin a character in UTF-8. Invalid bytes belong to the previous character, as in fastText.
bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

std::string wrap(std::string_view word) {
    std::string wrapped;
    wrapped.reserve(word.size() + 2);
    return wrapped.append(1, '<').append(word).append(1, '>');
}

// Calls found(begin, end, hash) for every n-gram of a word between its marks: all of min_n to max_n characters, except
// the marks alone.
template <class Found>
void visit(std::string_view wrapped, const Subwords& subwords, Found&& found) {
    for (std::size_t begin = 0; begin < wrapped.size(); ++begin) {
        if (continues(wrapped[begin])) continue;
        std::uint32_t hash = kHashStart;  // each n-gram continues the hash of the previous one
        std::size_t end = begin;
        for (int n = 1; n <= subwords.max_n && end < wrapped.size(); ++n) {
            do hash = hash_byte(hash, wrapped[end++]);
            while (end < wrapped.size() && continues(wrapped[end]));
            const bool mark = n == 1 && (begin == 0 || end == wrapped.size());
            if (n >= subwords.min_n && !mark) found(begin, end, hash);
        }
    }
}

std::int64_t count_subwords(std::string_view word, const Subwords& subwords) {
    if (word == kEndOfSentence) return 0;
    const auto characters = 2 + std::count_if(word.begin(), word.end(), [](char byte) { return !continues(byte); });
    std::int64_t count = 0;
    for (std::int64_t n = std::max(subwords.min_n, 1); n <= std::min<std::int64_t>(subwords.max_n, characters); ++n) {
        count += characters - n + 1 - (n == 1 ? 2 : 0);
    }
    return count;
}

std::uint32_t* find_subwords(std::string_view word, const Subwords& subwords, std::uint32_t* out) {
    if (word == kEndOfSentence) return out;
    visit(wrap(word), subwords,
          [&](std::size_t, std::size_t, std::uint32_t hash) { *out++ = hash % subwords.buckets; });
    return out;
}

}  // namespace

std::vector<std::string> split_subwords(std::string_view word, const Subwords& subwords) {
    std::vector<std::string> found;
    if (word == kEndOfSentence) return found;
    const std::string wrapped = wrap(word);
    visit(wrapped, subwords, [&](std::size_t begin, std::size_t end, std::uint32_t) {
        found.push_back(wrapped.substr(begin, end - begin));
    });
    return found;
}

void count_subwords(const std::vector<std::string_view>& words, const Subwords& subwords, int n_threads,
                    std::int64_t* offsets) {
    const auto n = static_cast<long long>(words.size());
    offsets[0] = 0;
    parallel_shares(n, n_threads, [&](long long begin, long long end, int) {
        for (long long i = begin; i < end; ++i) {
            if (i % 1024 == 0) check_interrupt();
            offsets[i + 1] = count_subwords(words[static_cast<std::size_t>(i)], subwords);
        }
    });
    for (long long i = 0; i < n; ++i) offsets[i + 1] += offsets[i];
}

void find_subwords(const std::vector<std::string_view>& words, const Subwords& subwords, const std::int64_t* offsets,
                   int n_threads, std::uint32_t* out) {
    parallel_shares(static_cast<long long>(words.size()), n_threads, [&](long long begin, long long end, int) {
        for (long long i = begin; i < end; ++i) {
            if (i % 1024 == 0) check_interrupt();
            find_subwords(words[static_cast<std::size_t>(i)], subwords, out + offsets[i]);
        }
    });
}

}  // namespace firth
