// One way to run work on several threads, with OpenMP or without, and to end it early.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace firth {

// Whether this process was forked from one that had loaded firth. OpenMP's threads do not exist after a fork, and its
// runtime would wait for them forever.
bool forked();

// More threads than this are never faster on this machine, and may be more than the system allows.
int sensible_threads();

// n, or how many threads this thread may ask OpenMP for if the system does not allow n. OpenMP's runtime ends the
// process if it cannot start a thread. The first time, and for each larger n, threads are started to find out.
int grantable_threads(int n);

// Ends work that the caller no longer wants.
class Interrupted : public std::exception {
  public:
    const char* what() const noexcept override { return "interrupted"; }
};

// While an object of this type exists, check_interrupt() throws Interrupted on this thread, and on those of its
// parallel(), once interrupted() has returned true.
class Interruptible {
  public:
    Interruptible(const Interruptible&) = delete;
    Interruptible& operator=(const Interruptible&) = delete;
    void check();

  protected:
    Interruptible();
    ~Interruptible();

  private:
    using Clock = std::chrono::steady_clock;
    virtual bool interrupted() = 0;  // called now and then on the thread that made this

    Interruptible* outer_;
    std::thread::id owner_;
    Clock::time_point asked_;
    std::atomic<bool> ended_{false};
};

// Long work calls this every few milliseconds, at places where all work that was started is finished or can be dropped:
// never in the middle of work that other threads wait for.
void check_interrupt();

// While an object of this type exists, this thread works for another thread's Interruptible.
class PartOf {
  public:
    explicit PartOf(Interruptible* whole);
    ~PartOf();
    PartOf(const PartOf&) = delete;
    PartOf& operator=(const PartOf&) = delete;
    static Interruptible* here();

  private:
    Interruptible* before_;
};

// Calls work(thread) for thread = 0 .. n_threads - 1, each on a thread of its own, and waits for all of them. An
// exception must not leave a parallel region, so the first one is kept and rethrown here.
template <class Work>
void parallel(int n_threads, Work&& work) {
    if (n_threads <= 1) {
        work(0);
        return;
    }
    std::exception_ptr failure;
    std::mutex guard;
    Interruptible* const whole = PartOf::here();
    const auto guarded = [&](int thread) {
        const PartOf part(whole);
        try {
            work(thread);
        } catch (...) {
            const std::lock_guard lock(guard);
            if (!failure) failure = std::current_exception();
        }
    };
#ifdef _OPENMP
    if (!forked()) {
        // A loop, not the bare region: with fewer threads than asked for, all the work is still done.
        const int team = grantable_threads(n_threads);
#pragma omp parallel for num_threads(team) schedule(static, 1)
        for (int thread = 0; thread < n_threads; ++thread) guarded(thread);
        if (failure) std::rethrow_exception(failure);
        return;
    }
#endif
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(n_threads));
    int started = 1;
    try {
        for (; started < n_threads; ++started) others.emplace_back(guarded, started);
    } catch (const std::exception&) {
        // The system allows no more threads, or has no memory for them. This thread does the rest of the work.
    }
    guarded(0);
    for (int thread = started; thread < n_threads; ++thread) guarded(thread);
    for (auto& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
}

// Cuts [0, n) into n_threads contiguous shares and calls work(begin, end, thread) for each.
template <class Work>
void parallel_shares(long long n, int n_threads, Work&& work) {
    parallel(n_threads, [&](int thread) { work(n * thread / n_threads, n * (thread + 1) / n_threads, thread); });
}

// Calls work(begin, end) for consecutive ranges of [begin, end) no longer than `step`, between which it can be
// interrupted.
template <class Work>
void in_steps(long long begin, long long end, long long step, Work&& work) {
    for (; begin < end; begin += step) {
        check_interrupt();
        work(begin, std::min(begin + step, end));
    }
}

// Hands out [0, n) to threads in ranges no longer than `step`, in order, each to the thread that asks first. Where the
// system runs one thread slower than another, equal shares would take as long as the slowest.
class SharedSteps {
  public:
    SharedSteps(long long n, long long step) : n_(n), step_(step) {}

    // Calls work(begin, end) for ranges, which ascend, until none is left. Work can be interrupted between two, where
    // all that were handed out to this thread are finished: other threads may wait for them.
    template <class Work>
    void take(Work&& work) {
        while (true) {
            check_interrupt();
            const long long begin = next_.fetch_add(step_, std::memory_order_relaxed);
            if (begin >= n_) return;
            work(begin, std::min(begin + step_, n_));
        }
    }

  private:
    long long n_, step_;
    std::atomic<long long> next_{0};
};

}  // namespace firth
