// Each entry moves two rows by one step. No number is used twice, so access to the rows decides the speed:
// a slice holds few enough of them to stay in cache, rows ascend, and columns are fetched some entries ahead.

#include "kernels/glove.hpp"

#include "kernels/simd.hpp"

namespace firth::FIRTH_ISA {
namespace {

constexpr std::int64_t kAhead = 4;  // entries between a prefetch and its use
constexpr int kLine = 16;           // floats in a cache line

FIRTH_INLINE float sum(Vec x) { return sum4(x, Vec{}, Vec{}, Vec{})[0]; }

double glove_slice(const Glove& task, const GloveEntry* entries, std::int64_t n, std::int64_t first_row,
                   std::int64_t first_column) {
    const std::int64_t stride = task.stride;
    float* const words = task.words + first_row * 2 * stride;
    float* const contexts = task.contexts + first_column * 2 * stride;
    const float *const word_rate = task.rates, *const context_rate = word_rate + stride,
                       *const clips = context_rate + stride;
    const Vec log_x_max = log_positive(splat(task.x_max));
    double cost = 0;
    float logs[kWidth], weights[kWidth];
    for (std::int64_t i = 0; i < n; ++i) {
        const auto lane = static_cast<int>(i % kWidth);
        if (lane == 0) {
            float values[kWidth];
            for (int j = 0; j < kWidth; ++j) values[j] = i + j < n ? entries[i + j].value : 1.0f;
            const Vec log_x = log_positive(load(values));
            store(logs, log_x);
            // f(x) = min(1, (x / x_max)^alpha), equation 9
            store(weights, exp_bounded(clamp((log_x - log_x_max) * task.alpha, -87.0f, 0.0f)));
        }
        if (i + kAhead < n) {
            const float* const next = contexts + entries[i + kAhead].column * 2 * stride;
            for (std::int64_t d = 0; d < 2 * stride; d += kLine) __builtin_prefetch(next + d, 1, 3);
            if (entries[i + kAhead].row != entries[i].row) {
                const float* const row = words + entries[i + kAhead].row * 2 * stride;
                for (std::int64_t d = 0; d < 2 * stride; d += kLine) __builtin_prefetch(row + d, 1, 3);
            }
        }
        float* const w = words + entries[i].row * 2 * stride;
        float* const c = contexts + entries[i].column * 2 * stride;
        Vec dot{};
        for (std::int64_t d = 0; d < stride; d += kWidth) dot += load(w + d) * load(c + d);
        const float difference = sum(dot) - logs[lane];
        const float weighted = weights[lane] * difference;
        if (!(__builtin_fabsf(weighted) < 3e38f)) return __builtin_nanf("");
        cost += 0.5 * static_cast<double>(weighted) * static_cast<double>(difference);
        const Vec gradient = splat(weighted);
        for (std::int64_t d = 0; d < stride; d += kWidth) {
            const Vec word = load(w + d), context = load(c + d), clip = load(clips + d);
            const Vec word_squares = load(w + stride + d), context_squares = load(c + stride + d);
            // The rate is multiplied in before the square is taken, as the published program has it: the sums grow
            // slower by the rate squared than AdaGrad's usually do, and the steps stay larger.
            const Vec word_step = min(max(gradient * context, -clip), clip) * load(word_rate + d);
            const Vec context_step = min(max(gradient * word, -clip), clip) * load(context_rate + d);
            store(w + d, word - word_step * inverse_sqrt(word_squares));
            store(c + d, context - context_step * inverse_sqrt(context_squares));
            store(w + stride + d, word_squares + word_step * word_step);
            store(c + stride + d, context_squares + context_step * context_step);
        }
    }
    return cost;
}

}  // namespace

const GloveKernels glove_kernels{
    .slice = glove_slice,
};

}  // namespace firth::FIRTH_ISA
