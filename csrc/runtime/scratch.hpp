// Scratch of each thread, out of one workspace.
#pragma once

#include <cstdint>

#include "kernels/arena.hpp"

namespace firth {
namespace {  // as in arena.hpp

class ThreadScratch {
  public:
    ThreadScratch(Arena& arena, std::int64_t bytes, int n_threads)
        : n_threads_(n_threads), bytes_((bytes + 63) / 64 * 64), memory_(arena.take<char>(n_threads * bytes_)) {}
    int n_threads() const { return n_threads_; }
    void* of(int thread) const { return memory_ + thread * bytes_; }

  private:
    int n_threads_;
    std::int64_t bytes_;
    char* memory_;
};

}  // namespace
}  // namespace firth
