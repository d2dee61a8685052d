#include "text/phrases.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "runtime/threads.hpp"

namespace firth {
namespace {

// Rewrites every document by `write(begin, end, out)`, which returns how many ids it wrote, at most as many as it read.
// Threads take documents of about equal tokens and write them in place, so `out` may be the array that is read. Then
// the results are moved together.
template <class Write>
std::int64_t rewrite(const Documents& documents, std::int32_t* out, std::int64_t* out_offsets, int n_threads,
                     Write&& write) {
    const std::int64_t* const offsets = documents.offsets;
    const std::int64_t n = documents.n_documents;
    const auto cut = [&](int thread) {
        if (thread == n_threads) return n;
        return std::lower_bound(offsets, offsets + n, offsets[n] / n_threads * thread) - offsets;
    };
    out_offsets[0] = 0;
    parallel(n_threads, [&](int thread) {
        const std::int64_t first = cut(thread), end = cut(thread + 1);
        std::int32_t* to = out + offsets[first];
        for (std::int64_t d = first; d < end; ++d) {
            if (d % 1024 == 0) check_interrupt();
            const std::int64_t length = write(documents.ids + offsets[d], documents.ids + offsets[d + 1], to);
            out_offsets[d + 1] = length;
            to += length;
        }
    });
    for (std::int64_t d = 0; d < n; ++d) out_offsets[d + 1] += out_offsets[d];
    for (int thread = 1; thread < n_threads; ++thread) {
        const std::int64_t first = cut(thread), end = cut(thread + 1);
        // Downwards, as std::copy allows.
        std::copy_n(out + offsets[first], out_offsets[end] - out_offsets[first], out + out_offsets[first]);
    }
    return out_offsets[n];
}

void check(std::int32_t id, std::int32_t n_words) {
    if (static_cast<std::uint32_t>(id) >= static_cast<std::uint32_t>(n_words)) {
        throw std::invalid_argument("id " + std::to_string(id) + " is not one of " + std::to_string(n_words) +
                                    " words");
    }
}

}  // namespace

PhraseTable::PhraseTable(const std::int32_t* states, const std::int32_t* words, const std::int32_t* targets,
                         std::int64_t n, std::int32_t n_words)
    : n_words_(n_words), starts_((static_cast<std::size_t>(n_words) + 63) / 64) {
    const std::size_t size = std::bit_ceil(std::max<std::size_t>(2 * static_cast<std::size_t>(n), 2));
    shift_ = 64 - std::countr_zero(size);
    slots_.resize(size);
    for (std::int64_t i = 0; i < n; ++i) {
        const std::uint64_t key = key_of(states[i], words[i]);
        std::size_t slot = slot_of(key);
        while (slots_[slot].key != kEmpty) slot = (slot + 1) & (size - 1);
        slots_[slot] = {key, targets[i]};
        if (states[i] < n_words) starts_[static_cast<std::size_t>(states[i]) >> 6] |= 1ULL << (states[i] & 63);
    }
}

std::int64_t merge_phrases(const Documents& documents, const PhraseTable& table, std::int32_t* out,
                           std::int64_t* out_offsets, int n_threads) {
    const auto write = [&](const std::int32_t* at, const std::int32_t* end, std::int32_t* to) {
        const std::int32_t* const begin = to;
        while (at < end) {
            const std::int32_t word = *at++;
            check(word, table.n_words());
            std::int32_t id = word;
            if (table.starts(word)) {
                std::int32_t state = word;
                for (const std::int32_t* next = at; next < end; ++next) {
                    const std::int32_t target = table.find(state, *next);
                    if (target == PhraseTable::kNone) break;
                    if (target >= 0) {
                        id = target;
                        at = next + 1;
                        break;
                    }
                    state = ~target;
                }
            }
            *to++ = id;
        }
        return to - begin;
    };
    return rewrite(documents, out, out_offsets, n_threads, write);
}

std::int64_t renumber(const Documents& documents, const std::int32_t* new_ids, std::int32_t n_words, std::int32_t* out,
                      std::int64_t* out_offsets, int n_threads) {
    const auto write = [&](const std::int32_t* at, const std::int32_t* end, std::int32_t* to) {
        const std::int32_t* const begin = to;
        for (; at < end; ++at) {
            check(*at, n_words);
            *to = new_ids[*at];
            to += *to >= 0;
        }
        return to - begin;
    };
    return rewrite(documents, out, out_offsets, n_threads, write);
}

}  // namespace firth
