#include "runtime/trace.hpp"

#include <time.h>

#include <mutex>
#include <utility>

namespace firth {
namespace {

std::mutex guard;
std::vector<TracedItem> items;

std::int64_t now(clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return std::int64_t{1'000'000'000} * time.tv_sec + time.tv_nsec;
}

}  // namespace

std::atomic<bool> Traced::on_{false};

void Traced::begin(const char* work, std::int64_t item, int thread) {
    item_ = {work, item, thread, now(CLOCK_MONOTONIC), 0, -now(CLOCK_THREAD_CPUTIME_ID)};
}

void Traced::end() {
    item_.cpu += now(CLOCK_THREAD_CPUTIME_ID);
    item_.end = now(CLOCK_MONOTONIC);
    const std::lock_guard lock(guard);
    items.push_back(item_);
}

void Traced::start() {
    const std::lock_guard lock(guard);
    items.clear();
    on_ = true;
}

std::vector<TracedItem> Traced::stop() {
    on_ = false;
    const std::lock_guard lock(guard);
    return std::exchange(items, {});
}

}  // namespace firth
