// Texts as bags of features: words, their character n-grams, and word n-grams. They are numbered as in fastText, so
// that its files can be read and written.
#pragma once

#include <cstdint>

namespace firth {

// T tokens in documents: ids of W different words. A feature is a number: a word of the vocabulary, in
// 0 .. n_words - 1, or n_words + bucket.
struct Texts {
    const std::int32_t* ids;             // (T)
    const std::int64_t* offsets;         // (n_documents + 1)
    const std::uint32_t* hashes;         // (W)
    const std::int32_t* features;        // (W) of the word, or kUnknown
    const std::int64_t* subword_begins;  // (W + 1) where its character n-grams begin; null: there are none
    const std::uint32_t* subword_buckets;
    std::int64_t n_documents;
    std::int32_t n_different;  // W
    // Hash and feature of the word that ends every document, fastText's end of a line.
    std::uint32_t end_hash;
    std::int32_t end_feature;
};

constexpr std::int32_t kUnknown = -1;  // a word without a feature, which still counts in word n-grams

struct BagOptions {
    std::int32_t n_words;
    std::uint32_t buckets;
    int word_ngrams;           // words in the longest n-gram; 1: none
    const std::int32_t* rows;  // (n_words + buckets) what is written for a feature; null: its number
};

// begins: (n_documents + 1) where the bag of each document begins.
void count_bags(const Texts& texts, const BagOptions& options, int n_threads, std::int64_t* begins);
// out: (begins[n_documents]): words and their subwords in the order of the text, then word n-grams by their first word.
void fill_bags(const Texts& texts, const BagOptions& options, const std::int64_t* begins, int n_threads,
               std::int32_t* out);

}  // namespace firth
