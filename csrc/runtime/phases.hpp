// Phases of tasks, one after the other, for threads that come and go.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/pause.hpp"

namespace firth {

// The thread that finishes the last task of a phase begins the next one. Unlike a barrier, this works with any number
// of threads. A thread that finds no task sleeps after a while, so that more threads than processors, or other
// programs, do little harm.
class Phases {
  public:
    explicit Phases(int tasks) : state_(static_cast<std::uint64_t>(tasks) << 16), left_(tasks) {}

    // Every thread calls this. work(task) does one task of the current phase. next() begins the next phase and returns
    // the number of its tasks, below 2^16. All work ends if that is 0, or if a task or next() throws.
    template <class Work, class Next>
    void run(Work&& work, Next&& next) {
        try {
            std::uint64_t state = state_.load(std::memory_order_acquire);
            while (tasks_of(state) != 0) {
                if (task_of(state) == tasks_of(state)) {
                    wait(state);
                } else if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) {
                    work(task_of(state));
                    if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) begin(state, next());
                }
                state = state_.load(std::memory_order_acquire);
            }
        } catch (...) {
            begin(state_.load(), 0);
            throw;
        }
    }

  private:
    // From the highest bits: the phase's number in 32 bits, its tasks in 16, the next one to do in 16.
    static int tasks_of(std::uint64_t state) { return static_cast<int>(state >> 16 & 0xFFFF); }
    static int task_of(std::uint64_t state) { return static_cast<int>(state & 0xFFFF); }

    void begin(std::uint64_t state, int tasks) {
        left_.store(tasks, std::memory_order_relaxed);
        state_.store(((state >> 32) + 1) << 32 | static_cast<std::uint64_t>(tasks) << 16, std::memory_order_release);
        state_.notify_all();
    }

    void wait(std::uint64_t state) const {
        constexpr int kSpins = 2000;  // some microseconds: a phase's last tasks rarely take more
        for (int i = 0; i < kSpins; ++i) {
            if (state_.load(std::memory_order_relaxed) != state) return;
            pause_spinning();
        }
        state_.wait(state, std::memory_order_acquire);
    }

    std::atomic<std::uint64_t> state_;
    std::atomic<int> left_;
};

}  // namespace firth
