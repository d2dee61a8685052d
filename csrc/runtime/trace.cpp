#include "runtime/trace.hpp"

#include <chrono>
#include <mutex>
#include <utility>

namespace firth {
namespace {

std::mutex guard;
std::vector<TracedItem> items;

}  // namespace

std::atomic<bool> Traced::on_{false};

std::int64_t Traced::now() {
    return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Traced::record() const {
    const std::int64_t end = now();
    const std::lock_guard lock(guard);
    items.push_back({item_, thread_, begin_, end});
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
