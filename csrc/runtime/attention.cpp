#include "runtime/attention.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <thread>

#include "kernels/attention.hpp"
#include "runtime/pause.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

// With fewer multiplications than this, another thread costs more than it saves.
constexpr double kThreadWork = 1e5;

int threads_for(const Attention& task, double products, int n_threads) {
    const double work = products * static_cast<double>(task.n_batches * task.n_heads) *
                        static_cast<double>(task.n_queries) * static_cast<double>(task.n_keys) *
                        (task.width + task.value_width) * (task.causal ? 0.5 : 1);
    return static_cast<int>(std::clamp(work / kThreadWork, 1.0, static_cast<double>(n_threads)));
}

// Calls work(item, scratch) for all items, each on the first thread that is free.
template <class Work>
void share_out(const ThreadScratch& scratch, std::int64_t n_items, Work&& work) {
    if (n_items == 0) return;
    SharedSteps items(n_items, 1);
    parallel(static_cast<int>(std::min<std::int64_t>(n_items, scratch.n_threads())),
             [&](int thread) { items.take([&](long long item, long long) { work(item, scratch.of(thread)); }); });
}

bool no_queries(const Attention& task) { return task.n_batches * task.n_heads * task.n_queries == 0; }

constexpr std::int64_t kFewRows = 24;          // up to so many queries of one key head, keys are read in place
static_assert(kFewRows <= kAttentionQueries);  // scratch has room for so many

struct ForwardSpace {
    std::int64_t rows;      // queries that share a key head
    std::int64_t segments;  // of the keys
    float* partials;        // (key heads, segments, rows, attention_partial), for few rows
    ThreadScratch scratch;

    ForwardSpace(Arena& arena, const Attention& task, const AttentionKernels& kernels, int n_threads)
        : rows(task.n_heads / task.n_key_heads * task.n_queries),
          segments(std::max<std::int64_t>(1, (task.n_keys + kAttentionSegment - 1) / kAttentionSegment)),
          partials(few() ? arena.take<float>(task.n_batches * task.n_key_heads * segments * partial(task)) : nullptr),
          scratch(arena, kernels.scratch_bytes(task), n_threads) {}
    bool few() const { return rows <= kFewRows; }
    std::int64_t partial(const Attention& task) const { return rows * attention_partial(task); }
};

void attend_few(const Attention& task, const AttentionKernels& kernels, const ForwardSpace& space) {
    const std::int64_t key_heads = task.n_batches * task.n_key_heads, segments = space.segments;
    const std::int64_t size = space.partial(task);
    share_out(space.scratch, key_heads * segments, [&](std::int64_t item, void* scratch) {
        const std::int64_t segment = item % segments, head = item / segments;
        const std::int64_t batch = head / task.n_key_heads;
        const KeyRange seen = attention_keys(task, batch, 0, task.n_queries);
        const std::int64_t begin = std::max(seen.begin, segment * kAttentionSegment);
        const std::int64_t end = std::max(begin, std::min(seen.end, (segment + 1) * kAttentionSegment));
        kernels.few(task, batch, head % task.n_key_heads, begin, end, space.partials + item * size, scratch);
    });
    parallel_shares(key_heads, static_cast<int>(std::min<std::int64_t>(key_heads, space.scratch.n_threads())),
                    [&](long long begin, long long end, int) {
                        for (long long head = begin; head < end; ++head) {
                            kernels.merge(task, head / task.n_key_heads, head % task.n_key_heads,
                                          space.partials + head * segments * size, segments);
                        }
                    });
}

// The order of work in the backward pass. A unit is work that only one thread does: all heads that share keys, or that
// share the gradient of a bias that is broadcast over them.
struct Units {
    bool all_batches, all_heads;
    std::int64_t n_batches, n_key_heads;  // of the units

    Units(const Attention& task, const AttentionTerm<float>& bias)
        : all_batches(bias.data != nullptr && bias.batch == 0),
          all_heads(bias.data != nullptr && bias.head == 0),
          n_batches(all_batches ? 1 : task.n_batches),
          n_key_heads(all_heads ? 1 : task.n_key_heads) {}
    std::int64_t count() const { return n_batches * n_key_heads; }

    template <class Work>
    void each_key_head(const Attention& task, std::int64_t unit, Work&& work) const {
        const std::int64_t batch = unit / n_key_heads, key_head = unit % n_key_heads;
        for (std::int64_t b = batch; b < (all_batches ? task.n_batches : batch + 1); ++b) {
            for (std::int64_t h = key_head; h < (all_heads ? task.n_key_heads : key_head + 1); ++h) work(b, h);
        }
    }
};

std::int64_t blocks_of(std::int64_t n) { return (n + kAttentionBlock - 1) / kAttentionBlock; }

struct BackwardSpace {
    ThreadScratch scratch;
    AttentionBackward gradients;
    float* delta;
    bool in_place;  // q_sums is the gradient of q itself
    std::atomic<std::int64_t>* turns;

    BackwardSpace(Arena& arena, const Attention& task, const AttentionKernels& kernels, const AttentionGradients& given,
                  int n_threads)
        : scratch(arena, kernels.scratch_bytes(task), n_threads) {
        const std::int64_t heads = task.n_batches * task.n_heads, rows = heads * task.n_queries;
        const std::int64_t blocks = heads * blocks_of(task.n_queries);
        const std::int64_t multiple = task.bf16 ? 32 : 16, stride = (task.width + multiple - 1) / multiple * multiple;
        // Possible if the gradient of q consists of rows of floats of the right width.
        in_place = !task.bf16 && task.width % 16 == 0 && given.q.column == 1 && given.q.time == task.width &&
                   given.q.head == task.n_queries * task.width &&
                   given.q.batch == task.n_heads * task.n_queries * task.width;
        delta = arena.take<float>(rows);
        turns = arena.take<std::atomic<std::int64_t>>(blocks);
        float* const q_sums = in_place ? static_cast<float*>(given.q.data) : arena.take<float>(rows * stride);
        gradients = {given, delta, q_sums, stride, arena.take<char>(blocks * kernels.packed_bytes(task))};
    }
};

}  // namespace

std::int64_t attend_bytes(const Attention& task, int n_threads) {
    if (no_queries(task)) return 0;
    Arena arena{nullptr};
    ForwardSpace(arena, task, attention_kernels(task.bf16), threads_for(task, 1, n_threads));
    return arena.used;
}

void attend(const Attention& task, int n_threads, void* workspace) {
    if (no_queries(task)) return;
    const AttentionKernels& kernels = attention_kernels(task.bf16);
    n_threads = threads_for(task, 1, n_threads);
    Arena arena{static_cast<char*>(workspace)};
    const ForwardSpace space(arena, task, kernels, n_threads);
    if (space.few()) return attend_few(task, kernels, space);
    // Blocks of queries small enough that there are some for every thread, but no smaller: keys are packed for each.
    const std::int64_t heads = task.n_batches * task.n_heads;
    const std::int64_t wanted = (8 * n_threads + heads - 1) / heads;
    const std::int64_t together = kernels.rows(task);
    std::int64_t size = std::clamp<std::int64_t>((task.n_queries + wanted - 1) / wanted, 48, kAttentionQueries);
    size = (size + together - 1) / together * together;
    const std::int64_t blocks = (task.n_queries + size - 1) / size;
    share_out(space.scratch, heads * blocks, [&](std::int64_t item, void* scratch) {
        // The last queries see the most keys. They come first, so that short work fills up the end.
        const std::int64_t block = blocks - 1 - item / heads, head = item % heads;
        kernels.forward(task, head / task.n_heads, head % task.n_heads, block * size,
                        std::min((block + 1) * size, task.n_queries), scratch);
    });
}

std::int64_t attend_backward_bytes(const Attention& task, const AttentionGradients& gradients, int n_threads) {
    if (task.n_batches * task.n_key_heads == 0) return 0;
    Arena arena{nullptr};
    BackwardSpace(arena, task, attention_kernels(task.bf16), gradients, threads_for(task, 2.5, n_threads));
    return arena.used;
}

void attend_backward(const Attention& task, const AttentionGradients& given, int n_threads, void* workspace) {
    if (task.n_batches * task.n_key_heads == 0) return;
    const AttentionKernels& kernels = attention_kernels(task.bf16);
    n_threads = threads_for(task, 2.5, n_threads);
    Arena arena{static_cast<char*>(workspace)};
    const BackwardSpace space(arena, task, kernels, given, n_threads);
    const AttentionBackward& gradients = space.gradients;
    const std::int64_t heads = task.n_batches * task.n_heads;
    const std::int64_t query_blocks = blocks_of(task.n_queries), key_blocks = blocks_of(task.n_keys);
    const std::int64_t group = task.n_heads / task.n_key_heads;
    share_out(space.scratch, heads * query_blocks, [&](std::int64_t item, void* scratch) {
        const std::int64_t head = item / query_blocks, begin = item % query_blocks * kAttentionBlock;
        const std::int64_t end = std::min(begin + kAttentionBlock, task.n_queries);
        const std::int64_t row = head * task.n_queries;
        std::fill(gradients.q_sums + (row + begin) * gradients.q_stride,
                  gradients.q_sums + (row + end) * gradients.q_stride, 0.0f);
        kernels.deltas(task, given.out, head / task.n_heads, head % task.n_heads, begin, end, space.delta,
                       gradients.packed, scratch);
    });

    // Each block of keys meets the blocks of queries that see it, in order. It adds to the gradients of the queries
    // when the block of keys before it has done so: turns[head, block of queries] is the block of keys whose turn it
    // is. Blocks of keys are begun in order, so that some thread works on the one that others wait for.
    const auto keys_of = [&](std::int64_t batch, std::int64_t block) {
        const KeyRange keys = attention_keys(task, batch, block * kAttentionBlock,
                                             std::min((block + 1) * kAttentionBlock, task.n_queries));
        return KeyRange{keys.begin / kAttentionBlock, (keys.end + kAttentionBlock - 1) / kAttentionBlock};
    };
    for (std::int64_t head = 0; head < heads; ++head) {
        for (std::int64_t block = 0; block < query_blocks; ++block) {
            new (space.turns + head * query_blocks + block)
                std::atomic<std::int64_t>(keys_of(head / task.n_heads, block).begin);
        }
    }
    const Units units(task, given.bias);
    // As many units at a time as there are threads: then most threads have one to themselves and do not wait.
    const std::int64_t abreast = std::min<std::int64_t>(units.count(), n_threads);
    share_out(space.scratch, units.count() * key_blocks, [&](std::int64_t item, void* scratch) {
        const std::int64_t first = item / (abreast * key_blocks) * abreast;
        const std::int64_t side_by_side = std::min(abreast, units.count() - first);
        const std::int64_t within = item - first * key_blocks;
        const std::int64_t unit = first + within % side_by_side, key_block = within / side_by_side;
        units.each_key_head(task, unit, [&](std::int64_t batch, std::int64_t key_head) {
            const std::int64_t begin = key_block * kAttentionBlock;
            kernels.begin_keys(task, gradients, batch, key_head, begin, std::min(begin + kAttentionBlock, task.n_keys),
                               scratch);
            for (std::int64_t head = key_head * group; head < (key_head + 1) * group; ++head) {
                for (std::int64_t block = 0; block < query_blocks; ++block) {
                    const KeyRange seen = keys_of(batch, block);
                    if (key_block < seen.begin || key_block >= seen.end) continue;
                    kernels.meet(task, gradients, head, block * kAttentionBlock,
                                 std::min((block + 1) * kAttentionBlock, task.n_queries), scratch);
                    auto& turn = space.turns[(batch * task.n_heads + head) * query_blocks + block];
                    for (int spins = 0; turn.load(std::memory_order_acquire) != key_block; ++spins) {
                        if (spins > 1000) {
                            std::this_thread::yield();
                        } else {
                            pause_spinning();
                        }
                    }
                    kernels.add_queries(task, gradients, scratch);
                    turn.store(key_block + 1, std::memory_order_release);
                }
            }
            kernels.end_keys(task, gradients, scratch);
        });
    });
    if (space.in_place) return;
    parallel_shares(heads * task.n_queries, n_threads, [&](long long begin, long long end, int) {
        for (long long row = begin; row < end; ++row) {
            const std::int64_t head = row / task.n_queries;
            kernels.end_query(task, given.q, head / task.n_heads, head % task.n_heads, row % task.n_queries,
                              gradients.q_sums + row * gradients.q_stride);
        }
    });
}

std::int64_t attention_view_bytes(const Attention& task, int n_threads) {
    Arena arena{nullptr};
    ThreadScratch(arena, attention_kernels(task.bf16).scratch_bytes(task), n_threads);
    return arena.used;
}

void attention_maps(const Attention& task, const std::int64_t* heads, std::int64_t n_heads, const std::int64_t* rows,
                    std::int64_t n_rows, float* weights, int n_threads, void* workspace) {
    const AttentionKernels& kernels = attention_kernels(task.bf16);
    Arena arena{static_cast<char*>(workspace)};
    share_out(ThreadScratch(arena, kernels.scratch_bytes(task), n_threads), task.n_batches * n_heads * n_rows,
              [&](std::int64_t item, void* scratch) {
                  const std::int64_t batch = item / (n_heads * n_rows), head = item / n_rows % n_heads;
                  kernels.weights(task, batch, heads[head], rows[item % n_rows], weights + item * task.n_keys, scratch);
              });
}

void attention_row_entropies(const Attention& task, float* entropies, int n_threads, void* workspace) {
    const AttentionKernels& kernels = attention_kernels(task.bf16);
    const std::int64_t heads = task.n_batches * task.n_heads;
    const std::int64_t blocks = blocks_of(task.n_queries);
    Arena arena{static_cast<char*>(workspace)};
    share_out(ThreadScratch(arena, kernels.scratch_bytes(task), threads_for(task, 1, n_threads)), heads * blocks,
              [&](std::int64_t item, void* scratch) {
                  const std::int64_t begin = item % blocks * kAttentionBlock, head = item / blocks;
                  kernels.entropies(task, head / task.n_heads, head % task.n_heads, begin,
                                    std::min(begin + kAttentionBlock, task.n_queries), entropies, scratch);
              });
}

}  // namespace firth
