#include "text/bags.hpp"

#include <algorithm>
#include <vector>

#include "runtime/threads.hpp"

namespace firth {
namespace {

// fastText stores hashes of words as signed numbers and sign-extends them to 64 bits.
std::uint64_t extended(std::uint32_t hash) {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::int32_t>(hash)));
}

// x % n without a division, which would take most of the running time.
class Remainder {
  public:
    explicit Remainder(std::uint32_t n) : n_(n), inverse_(n > 0 ? ~std::uint64_t{0} / n : 0) {}
    std::uint64_t operator()(std::uint64_t x) const {
        // The quotient is exact or at most 2 too small.
        std::uint64_t rest = x - static_cast<std::uint64_t>((static_cast<unsigned __int128>(x) * inverse_) >> 64) * n_;
        while (rest >= n_) rest -= n_;
        return rest;
    }

  private:
    std::uint64_t n_, inverse_;
};

std::int64_t subwords_of(const Texts& texts, std::int32_t id) {
    return texts.subword_begins ? texts.subword_begins[id + 1] - texts.subword_begins[id] : 0;
}

std::int64_t ngrams_of(std::int64_t words, int longest) {
    std::int64_t count = 0;
    for (int n = 2; n <= longest && n <= words; ++n) count += words - n + 1;
    return count;
}

}  // namespace

void count_bags(const Texts& texts, const BagOptions& options, int n_threads, std::int64_t* begins) {
    begins[0] = 0;
    parallel_shares(texts.n_documents, n_threads, [&](long long begin, long long end, int) {
        for (long long d = begin; d < end; ++d) {
            if (d % 1024 == 0) check_interrupt();
            std::int64_t features = texts.end_feature >= 0;
            for (std::int64_t t = texts.offsets[d]; t < texts.offsets[d + 1]; ++t) {
                const std::int32_t id = texts.ids[t];
                features += (texts.features[id] >= 0) + subwords_of(texts, id);
            }
            const std::int64_t words = texts.offsets[d + 1] - texts.offsets[d] + 1;
            begins[d + 1] = features + ngrams_of(words, options.word_ngrams);
        }
    });
    for (std::int64_t d = 0; d < texts.n_documents; ++d) begins[d + 1] += begins[d];
}

void fill_bags(const Texts& texts, const BagOptions& options, const std::int64_t* begins, int n_threads,
               std::int32_t* out) {
    const auto put = [&](std::int32_t*& at, std::int64_t feature) {
        *at++ = options.rows ? options.rows[feature] : static_cast<std::int32_t>(feature);
    };
    const Remainder bucket_of(options.buckets);
    parallel_shares(texts.n_documents, n_threads, [&](long long begin, long long end, int) {
        std::vector<std::uint64_t> hashes;
        for (long long d = begin; d < end; ++d) {
            if (d % 1024 == 0) check_interrupt();
            std::int32_t* at = out + begins[d];
            hashes.clear();
            for (std::int64_t t = texts.offsets[d]; t < texts.offsets[d + 1]; ++t) {
                const std::int32_t id = texts.ids[t];
                hashes.push_back(extended(texts.hashes[id]));
                if (texts.features[id] >= 0) put(at, texts.features[id]);
                if (texts.subword_begins == nullptr) continue;
                for (std::int64_t i = texts.subword_begins[id]; i < texts.subword_begins[id + 1]; ++i) {
                    put(at, options.n_words + static_cast<std::int64_t>(texts.subword_buckets[i]));
                }
            }
            hashes.push_back(extended(texts.end_hash));
            if (texts.end_feature >= 0) put(at, texts.end_feature);
            for (std::size_t i = 0; i < hashes.size(); ++i) {
                std::uint64_t hash = hashes[i];
                const std::size_t stop = std::min(hashes.size(), i + static_cast<std::size_t>(options.word_ngrams));
                for (std::size_t j = i + 1; j < stop; ++j) {
                    hash = hash * 116049371u + hashes[j];
                    put(at, options.n_words + static_cast<std::int64_t>(bucket_of(hash)));
                }
            }
        }
    });
}

}  // namespace firth
