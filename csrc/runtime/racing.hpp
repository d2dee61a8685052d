// Training in which threads update the same vectors at once. Each has its own scratch and tally.
#pragma once

#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {  // as in arena.hpp

template <class Tally>
struct RacingSpace {
    ThreadScratch scratch;
    Tally* tallies;  // (threads)

    RacingSpace(Arena& arena, std::int64_t scratch_bytes, int n_threads)
        : scratch(arena, scratch_bytes, n_threads), tallies(arena.take<Tally>(n_threads)) {}
};

template <class Tally>
std::int64_t racing_bytes(std::int64_t scratch_bytes, int n_threads) {
    Arena arena{nullptr};
    RacingSpace<Tally>(arena, scratch_bytes, n_threads);
    return arena.used;
}

// Calls train(thread, tally, scratch) on each thread and add(tally, all) for its tally.
template <class Tally, class Train, class Add>
Tally train_racing(std::int64_t scratch_bytes, int n_threads, void* workspace, Train&& train, Add&& add) {
    Arena arena{static_cast<char*>(workspace)};
    const RacingSpace<Tally> space(arena, scratch_bytes, n_threads);
    parallel(n_threads, [&](int thread) {
        Tally tally;  // on the thread's stack: in the workspace, threads would share cache lines
        train(thread, &tally, space.scratch.of(thread));
        space.tallies[thread] = tally;
    });
    Tally all;
    for (int thread = 0; thread < n_threads; ++thread) add(space.tallies[thread], all);
    return all;
}

}  // namespace
}  // namespace firth
