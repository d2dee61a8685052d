// One way to run work on several threads, with OpenMP or without.
#pragma once

#include <exception>
#include <mutex>
#ifndef _OPENMP
#include <thread>
#include <vector>
#endif

namespace firth {

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
    // A loop, not the bare region: a runtime that grants fewer threads than asked for still does all the work.
#pragma omp parallel for num_threads(n_threads) schedule(static, 1)
    for (int thread = 0; thread < n_threads; ++thread) guarded(thread);
#else
    std::vector<std::thread> others;
    for (int thread = 1; thread < n_threads; ++thread) others.emplace_back(guarded, thread);
    guarded(0);
    for (auto& other : others) other.join();
#endif
    if (failure) std::rethrow_exception(failure);
}

// Cuts [0, n) into n_threads contiguous shares and calls work(begin, end, thread) for each.
template <class Work>
void parallel_shares(long long n, int n_threads, Work&& work) {
    parallel(n_threads, [&](int thread) { work(n * thread / n_threads, n * (thread + 1) / n_threads, thread); });
}

}  // namespace firth
