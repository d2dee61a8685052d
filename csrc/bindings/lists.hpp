// Concatenated lists, as firth stores them everywhere: all items in one array, and where each list begins.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "bindings/check.hpp"
#include "runtime/threads.hpp"

namespace firth {

// List i has the items [begins[i], begins[i + 1]). Checks that n lists cover n_items items in order. Returns the length
// of the longest list.
inline std::int64_t check_begins(const std::int64_t* begins, std::int64_t n, std::int64_t n_items,
                                 const std::string& name) {
    require(n >= 0 && begins[0] == 0 && begins[n] == n_items,
            name + " must run from 0 to the number of items, " + std::to_string(n_items));
    // Numbers that do not rise may be anything: their differences could overflow, unless unsigned.
    std::uint64_t longest = 0;
    bool rises = true;
    for (std::int64_t i = 0; i < n; ++i) {
        rises &= begins[i] <= begins[i + 1];
        longest = std::max(longest, static_cast<std::uint64_t>(begins[i + 1]) - static_cast<std::uint64_t>(begins[i]));
    }
    if (!rises) {
        std::int64_t i = 1;
        while (begins[i - 1] <= begins[i]) ++i;
        throw std::invalid_argument(name + "[" + std::to_string(i) + "] is below the one before it");
    }
    require(longest < (std::uint64_t{1} << 31), name + ": a list must have fewer than 2^31 items");
    return static_cast<std::int64_t>(longest);
}

// Checks that all n items lie in low .. limit - 1. Ends early on Ctrl-C if the GIL is released.
template <class Item>
void check_items(const Item* items, std::int64_t n, std::int64_t low, std::int64_t limit, const std::string& name,
                 int threads = 1) {
    parallel_shares(n, threads, [&](long long first, long long end, int) {
        in_steps(first, end, 1 << 20, [&](long long from, long long to) {
            bool inside = true;
            for (long long i = from; i < to; ++i) inside &= items[i] >= low && items[i] < limit;
            if (inside) return;
            while (items[from] >= low && items[from] < limit) ++from;
            throw std::invalid_argument(name + "[" + std::to_string(from) + "] = " + std::to_string(items[from]) +
                                        " must lie in " + std::to_string(low) + " .. " + std::to_string(limit - 1));
        });
    });
}

}  // namespace firth
