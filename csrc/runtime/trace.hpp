// A record of which thread did which work item when. benchmarks/schedule.py predicts speeds on more threads from it.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace firth {

struct TracedItem {
    std::int64_t item, thread;
    std::int64_t begin, end;  // in nanoseconds
};

// While work is traced, an object of this type records the time from its construction to its destruction.
class Traced {
  public:
    Traced(std::int64_t item, int thread) : item_(item), thread_(on_.load(std::memory_order_relaxed) ? thread : -1) {
        if (thread_ >= 0) begin_ = now();
    }
    ~Traced() {
        if (thread_ >= 0) record();
    }
    Traced(const Traced&) = delete;
    Traced& operator=(const Traced&) = delete;

    // Begins the record of this process, or ends it and returns what was recorded.
    static void start();
    static std::vector<TracedItem> stop();

  private:
    static std::int64_t now();
    void record() const;

    static std::atomic<bool> on_;
    std::int64_t item_, begin_ = 0;
    int thread_;
};

}  // namespace firth
