#include "runtime/sampling.hpp"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "runtime/random.hpp"
#include "runtime/threads.hpp"

namespace firth {

void build_alias_table(AliasCell* cells, const double* weights, std::size_t n) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (!(weights[i] >= 0)) throw std::invalid_argument("weights must be non-negative numbers");
        sum += weights[i];
    }
    if (!(sum > 0) || !std::isfinite(sum)) throw std::invalid_argument("weights must have a positive, finite sum");

    // A cell with less than its fair share takes the rest from one with more.
    std::vector<double> share(n);
    std::vector<std::uint32_t> small, large;
    for (std::size_t i = 0; i < n; ++i) {
        share[i] = weights[i] * static_cast<double>(n) / sum;
        (share[i] < 1 ? small : large).push_back(static_cast<std::uint32_t>(i));
    }
    for (std::size_t i = 0; i < n; ++i) cells[i] = {0xFFFFFFFFu, static_cast<std::uint32_t>(i)};
    while (!small.empty() && !large.empty()) {
        const std::uint32_t i = small.back(), donor = large.back();
        small.pop_back();
        cells[i] = {static_cast<std::uint32_t>(share[i] * 4294967296.0), donor};
        share[donor] -= 1 - share[i];
        if (share[donor] < 1) {
            large.pop_back();
            small.push_back(donor);
        }
    }
    // Cells left on either list have a full share up to rounding, and keep the whole cell.
}

void fill_uniform(float* out, std::size_t rows, std::size_t columns, std::size_t stride, const std::int64_t* numbers,
                  float scale, std::uint64_t seed, int n_threads) {
    const std::uint64_t key = random_key(seed, 0);
    parallel_shares(static_cast<long long>(rows), n_threads, [&](long long begin, long long end, int) {
        for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row) {
            if (row % 4096 == 0) check_interrupt();
            const std::uint64_t number = numbers ? static_cast<std::uint64_t>(numbers[row]) : row;
            for (std::size_t column = 0; column < columns; ++column) {
                const std::uint64_t bits =
                    random_at(key, number * columns + column) >> 40;  // 24 bits: exact in a float
                out[row * stride + column] = (static_cast<float>(bits) * 0x1p-23f - 1.0f) * scale;
            }
        }
    });
}

}  // namespace firth
