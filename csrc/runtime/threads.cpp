#include "runtime/threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <condition_variable>

namespace firth {
namespace {

std::atomic<bool> in_child{false};
const int registered = pthread_atfork(nullptr, nullptr, [] { in_child = true; });

// Short enough for a user who waits, and long enough that waiting for the GIL costs little.
constexpr std::chrono::milliseconds kBetweenChecks{100};

thread_local Interruptible* current = nullptr;

// Known sizes of teams, for each thread: OpenMP's threads belong to the thread that asked for them.
thread_local int granted = 1, refused = INT_MAX;

// How many more threads can be started, up to n: starts as many, and ends them when all of them run.
int startable(int n) {
    std::mutex guard;
    std::condition_variable changed;
    bool over = false;
    std::vector<std::thread> threads;
    threads.reserve(static_cast<std::size_t>(n));
    try {
        while (static_cast<int>(threads.size()) < n) {
            threads.emplace_back([&] {
                std::unique_lock lock(guard);
                changed.wait(lock, [&] { return over; });
            });
        }
    } catch (const std::exception&) {
        // The system allows no more threads, or has no memory for them.
    }
    {
        const std::lock_guard lock(guard);
        over = true;
    }
    changed.notify_all();
    for (auto& thread : threads) thread.join();
    return static_cast<int>(threads.size());
}

}  // namespace

bool forked() { return in_child; }

int sensible_threads() { return std::max(64, 4 * static_cast<int>(std::thread::hardware_concurrency())); }

int grantable_threads(int n) {
#ifndef _OPENMP
    return n;  // parallel() does all work on the threads that it can start
#endif
    if (n <= granted || forked()) return n;
    if (n < refused) {
        const int found = 1 + startable(n - 1);
        if (found == n) return granted = n;
        // Half of them: the threads themselves need memory, and other programs need threads.
        refused = n;
        granted = std::max(granted, found / 2);
    }
    return granted;
}

Interruptible::Interruptible()
    : outer_(std::exchange(current, this)), owner_(std::this_thread::get_id()), asked_(Clock::now()) {}

Interruptible::~Interruptible() { current = outer_; }

void Interruptible::check() {
    if (!ended_.load(std::memory_order_relaxed)) {
        if (std::this_thread::get_id() != owner_ || Clock::now() - asked_ < kBetweenChecks) return;
        const bool end = interrupted();
        asked_ = Clock::now();
        if (!end) return;
        ended_.store(true, std::memory_order_relaxed);
    }
    throw Interrupted();
}

void check_interrupt() {
    if (current != nullptr) current->check();
}

PartOf::PartOf(Interruptible* whole) : before_(std::exchange(current, whole)) {}
PartOf::~PartOf() { current = before_; }
Interruptible* PartOf::here() { return current; }

}  // namespace firth
