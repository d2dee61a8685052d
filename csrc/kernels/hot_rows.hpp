// The rows that threads write most, where several train on the same matrix. Their cache lines would move from core to
// core at every update, which takes longer than the update. So each thread has copies of them, and adds what a copy
// has moved by to the matrix after a number of uses.
//
// Kernels include this once per instruction set, as they do simd.hpp.
#pragma once

#include "kernels/arena.hpp"
#include "kernels/simd.hpp"
#include "tasks/logistic.hpp"

namespace firth::FIRTH_ISA {
namespace {

// The rows of one matrix, as one of the threads sees them.
class HotRows {
  public:
    // Copies of the `n` rows from `first` on. With one thread there are none, and all rows lie in the matrix.
    HotRows(Arena& arena, float* matrix, int stride, std::int64_t first, std::int64_t n, int n_threads, float pull)
        : matrix_(matrix),
          stride_(stride),
          first_(first),
          n_(n_threads > 1 ? n : 0),
          n_threads_(n_threads),
          pull_(pull),
          left_(arena.take<std::int32_t>(n_)),
          own_(arena.take<float>(n_ * stride)),
          fetched_(arena.take<float>(n_ * stride)) {
        if (arena.base == nullptr) return;
        for (std::int64_t i = 0; i < n_; ++i) left_[i] = kNoCopy;
    }

    // Where the row lies for its next use.
    FIRTH_INLINE_MEMBER float* use(std::int64_t row) const {
        const std::int64_t place = row - first_;
        if (static_cast<std::uint64_t>(place) >= static_cast<std::uint64_t>(n_)) return matrix_ + row * stride_;
        if (--left_[place] <= 0) renew(place);
        return own_ + place * stride_;
    }

    // After the last use: adds to the matrix what all copies have moved by.
    void finish() const {
        for (std::int64_t place = 0; place < n_; ++place) {
            if (left_[place] != kNoCopy) add(place, kHotUses - left_[place]);
            left_[place] = kNoCopy;
        }
    }

  private:
    static constexpr std::int32_t kNoCopy = -1;

    // Before the last use of a copy its row is fetched from the other cores. After it, and where there is no copy yet,
    // the copy is renewed.
    __attribute__((noinline)) void renew(std::int64_t place) const {
        float* const row = matrix_ + (first_ + place) * stride_;
        if (left_[place] == 0) {
            for (std::int64_t d = 0; d < stride_; d += kRowFloats) __builtin_prefetch(row + d, 1, 3);
            return;
        }
        const bool copied = left_[place] != kNoCopy - 1;
        left_[place] = kHotUses - 1;
        if (copied) return add(place, kHotUses);
        float *const own = own_ + place * stride_, *const fetched = fetched_ + place * stride_;
        for (std::int64_t d = 0; d < stride_; d += kWidth) {
            const Vec now = load(row + d);
            store(own + d, now);
            store(fetched + d, now);
        }
    }

    // Adds to the row a share of what its copy has moved by, and fetches it again. If a few uses bring a row to rest,
    // the sum of all threads' moves would carry it too far, and training would diverge: see joint_share.
    void add(std::int64_t place, std::int32_t uses) const {
        const float pull = pull_ * static_cast<float>(uses);
        const float share = (1 + pull) / (1 + pull * static_cast<float>(n_threads_));
        float* const row = matrix_ + (first_ + place) * stride_;
        float *const own = own_ + place * stride_, *const fetched = fetched_ + place * stride_;
        for (std::int64_t d = 0; d < stride_; d += kWidth) {
            const Vec now = load(row + d) + (load(own + d) - load(fetched + d)) * share;
            store(row + d, now);
            store(own + d, now);
            store(fetched + d, now);
        }
    }

    float* matrix_;
    std::int64_t stride_, first_, n_;
    int n_threads_;
    float pull_;          // of one use: see kCurvature
    std::int32_t* left_;  // (n) uses until a copy is renewed
    float* own_;          // (n, stride) the copies
    float* fetched_;      // (n, stride) the copies as they were fetched
};

}  // namespace
}  // namespace firth::FIRTH_ISA
