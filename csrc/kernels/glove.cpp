#include "kernels/glove.hpp"

#include "kernels/simd.hpp"

namespace firth::FIRTH_ISA {
namespace {

constexpr int kAhead = 3;  // entries between a prefetch and its use
constexpr int kLine = 16;

// The natural logarithm of normal positive numbers, within 2 units in the last place: the exponent's part, and a
// polynomial on [sqrt(1/2), sqrt(2)] with the coefficients of the Cephes library (Moshier).
FIRTH_INLINE Vec log_positive(Vec x) {
    const VecInt bits = reinterpret_cast<VecInt>(x);
    VecInt exponent = (bits >> 23) - 126;
    Vec m = reinterpret_cast<Vec>((bits & 0x007FFFFF) | 0x3F000000);  // in [1/2, 1)
    const VecInt low = m < 0.707106781186547524f;
    exponent += low;  // -1 where m is doubled
    m = select(low, m + m, m) - 1.0f;
    Vec p = splat(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const Vec e = __builtin_convertvector(exponent, Vec);
    const Vec square = m * m;
    return ((p * m) * square - e * 2.12194440e-4f - 0.5f * square + m) + e * 0.693359375f;
}

// 1 / sqrt(x) for normal positive x: the processor's estimate, and one step of Newton's, within a few units in the
// last place. The division and the square root that it replaces would take most of the time.
FIRTH_INLINE Vec inverse_sqrt(Vec x) {
#if defined(__AVX512F__)
    const Vec y = reinterpret_cast<Vec>(_mm512_rsqrt14_ps(reinterpret_cast<__m512>(x)));
#elif defined(__AVX2__)
    const Vec y = reinterpret_cast<Vec>(_mm256_rsqrt_ps(reinterpret_cast<__m256>(x)));
#elif defined(__x86_64__)
    const Vec y = reinterpret_cast<Vec>(_mm_rsqrt_ps(reinterpret_cast<__m128>(x)));
#else
    Vec y;
    for (int lane = 0; lane < kWidth; ++lane) y[lane] = 1.0f / __builtin_sqrtf(x[lane]);
#endif
    return y * (1.5f - 0.5f * x * y * y);
}

FIRTH_INLINE Vec clamp_to(Vec x, Vec bound) {
    x = select(x > bound, bound, x);
    return select(x < -bound, -bound, x);
}

FIRTH_INLINE float sum(Vec x) {
    const Vec4 s = sum4(x, Vec{}, Vec{}, Vec{});
    return s[0];
}

}  // namespace

double glove_slice(const GloveTask& task, const GloveEntry* entries, std::int64_t n, std::int64_t first_row,
                   std::int64_t first_column) {
    const std::int64_t stride = task.stride;
    const auto rows_ahead = [&](std::int64_t i) {
        if (i >= n) return;
        const std::int64_t row = (first_row + entries[i].row) * stride;
        const std::int64_t column = (first_column + entries[i].column) * stride;
        for (std::int64_t d = 0; d < stride; d += kLine) {
            __builtin_prefetch(task.vectors + row + d, 1, 3);
            __builtin_prefetch(task.vectors_squares + row + d, 1, 3);
            __builtin_prefetch(task.context + column + d, 1, 3);
            __builtin_prefetch(task.context_squares + column + d, 1, 3);
        }
    };
    for (std::int64_t i = 0; i < kAhead; ++i) rows_ahead(i);
    double cost = 0;
    float logs[kWidth], weights[kWidth];
    const float log_x_max = __builtin_logf(task.x_max);
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
        rows_ahead(i + kAhead);
        const std::int64_t row = (first_row + entries[i].row) * stride;
        const std::int64_t column = (first_column + entries[i].column) * stride;
        float* const w = task.vectors + row;
        float* const c = task.context + column;
        float* const w_squares = task.vectors_squares + row;
        float* const c_squares = task.context_squares + column;
        Vec dot{};
        for (std::int64_t d = 0; d < stride; d += kWidth) dot += load(w + d) * load(c + d);
        const float difference = sum(dot) - logs[lane];
        const float weighted = weights[lane] * difference;
        if (!(__builtin_fabsf(weighted) < 3e38f)) return __builtin_nan("");
        cost += 0.5 * static_cast<double>(weighted) * static_cast<double>(difference);
        const Vec gradient = splat(weighted);
        for (std::int64_t d = 0; d < stride; d += kWidth) {
            const Vec word = load(w + d), near = load(c + d), clip = load(task.clip + d);
            const Vec word_square = load(w_squares + d), near_square = load(c_squares + d);
            // The rate is multiplied in before the square is taken, as the published program has it: the sums grow
            // slower by the rate squared than AdaGrad's usually do, and the steps stay larger.
            const Vec word_step = clamp_to(gradient * near, clip) * load(task.vectors_rate + d);
            const Vec near_step = clamp_to(gradient * word, clip) * load(task.context_rate + d);
            store(w + d, word - word_step * inverse_sqrt(word_square));
            store(c + d, near - near_step * inverse_sqrt(near_square));
            store(w_squares + d, word_square + word_step * word_step);
            store(c_squares + d, near_square + near_step * near_step);
        }
    }
    return cost;
}

}  // namespace firth::FIRTH_ISA
