// A record of which thread did which work item when. benchmarks/schedule.py predicts speeds on more threads from it.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace firth {

struct TracedItem {
    const char* work;
    std::int64_t item;
    int thread;
    std::int64_t begin, end, cpu;  // in nanoseconds; what the thread computed between them
};

// While work is traced, an object of this type records the time from its construction to its destruction.
class Traced {
  public:
    // `work` must be a literal.
    Traced(const char* work, std::int64_t item, int thread) {
        if (on_.load(std::memory_order_relaxed)) begin(work, item, thread);
    }
    ~Traced() {
        if (item_.work != nullptr) end();
    }
    Traced(const Traced&) = delete;
    Traced& operator=(const Traced&) = delete;

    // Begins the record of this process, or ends it and returns what was recorded.
    static void start();
    static std::vector<TracedItem> stop();

  private:
    void begin(const char* work, std::int64_t item, int thread);
    void end();

    static std::atomic<bool> on_;
    TracedItem item_{};
};

}  // namespace firth
