// One way to run work on several threads, with OpenMP or without.
#pragma once

#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace firth {

// Whether this process was forked from one that had loaded firth. OpenMP's threads do not come along in a fork, and
// its runtime waits for them for ever.
bool forked();

// Calls work(thread) for thread = 0 .. n_threads - 1, each on a thread of its own, and waits for all of them.
// An exception must not leave a parallel region: the first one is kept and thrown again here.
template <class Work>
void parallel(int n_threads, Work&& work) {
    if (n_threads <= 1) {
        work(0);
        return;
    }
    std::exception_ptr failure;
    std::mutex guard;
    const auto guarded = [&](int thread) {
        try {
            work(thread);
        } catch (...) {
            const std::lock_guard lock(guard);
            if (!failure) failure = std::current_exception();
        }
    };
#ifdef _OPENMP
    if (!forked()) {
        // A loop, not the bare region: a runtime that grants fewer threads than asked for still does all the work.
#pragma omp parallel for num_threads(n_threads) schedule(static, 1)
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
    } catch (const std::system_error&) {
        // The system grants no more threads: the rest of the work is done on this one.
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

}  // namespace firth
