#include "runtime/attention.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "runtime/aligned.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

// Multiplications that are worth a thread.
constexpr double kThreadWork = 1e5;

int threads_for(const Attention& task, double products, int n_threads) {
    const double work = products * static_cast<double>(task.n_batches * task.n_heads) *
                        static_cast<double>(task.n_queries) * static_cast<double>(task.n_keys) *
                        (task.width + task.value_width) * (task.causal ? 0.5 : 1);
    return static_cast<int>(std::clamp(work / kThreadWork, 1.0, static_cast<double>(n_threads)));
}

// Of a thread's scratch, this much is kept for its next call: fresh pages would cost more than a short sequence.
constexpr std::int64_t kKept = 4 << 20;

class Scratch {
  public:
    explicit Scratch(std::int64_t bytes) {
        thread_local std::unique_ptr<AlignedBytes> kept;
        if (bytes > kKept) {
            own_ = std::make_unique<AlignedBytes>(bytes);
        } else if (kept == nullptr) {
            kept = std::make_unique<AlignedBytes>(kKept);  // pages that are not touched take no memory
        }
        data = bytes > kKept ? own_->data : kept->data;
    }
    void* data;

  private:
    std::unique_ptr<AlignedBytes> own_;
};

// Calls work(item, scratch) for all items, each taken by the thread that comes first.
template <class Work>
void share_out(const Attention& task, const AttentionKernels& kernels, std::int64_t n_items, int n_threads,
               Work&& work) {
    if (n_items == 0) return;
    std::atomic<std::int64_t> next{0};
    n_threads = static_cast<int>(std::min<std::int64_t>(n_items, n_threads));
    parallel(n_threads, [&](int) {
        const Scratch scratch(kernels.scratch_bytes(task));
        for (std::int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < n_items;) {
            work(item, scratch.data);
            check_interrupt();
        }
    });
}

constexpr std::int64_t kFewRows = 24;  // of queries that share a key head: up to this, keys are read as they lie
static_assert(kFewRows <= kAttentionQueries);  // which scratch has room for

void attend_few(const Attention& task, const AttentionKernels& kernels, std::int64_t rows, int n_threads) {
    const std::int64_t key_heads = task.n_batches * task.n_key_heads;
    const std::int64_t segments = std::max<std::int64_t>(1, (task.n_keys + kAttentionSegment - 1) / kAttentionSegment);
    const std::int64_t size = rows * attention_partial(task);
    std::vector<float> partials(static_cast<std::size_t>(key_heads * segments * size));
    share_out(task, kernels, key_heads * segments, n_threads, [&](std::int64_t item, void* scratch) {
        const std::int64_t segment = item % segments, head = item / segments;
        const std::int64_t batch = head / task.n_key_heads;
        const KeyRange seen = attention_keys(task, batch, 0, task.n_queries);
        const std::int64_t begin = std::max(seen.begin, segment * kAttentionSegment);
        const std::int64_t end = std::max(begin, std::min(seen.end, (segment + 1) * kAttentionSegment));
        kernels.few(task, batch, head % task.n_key_heads, begin, end, partials.data() + item * size, scratch);
    });
    parallel_shares(key_heads, static_cast<int>(std::min<std::int64_t>(key_heads, n_threads)),
                    [&](long long begin, long long end, int) {
                        for (long long head = begin; head < end; ++head) {
                            kernels.merge(task, head / task.n_key_heads, head % task.n_key_heads,
                                          partials.data() + head * segments * size, segments);
                        }
                    });
}

// The threads' order of work backward. A unit is what one thread has to itself: all heads that share keys, or that
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

}  // namespace

void attend(const Attention& task, int n_threads) {
    if (task.n_batches * task.n_heads * task.n_queries == 0) return;
    const AttentionKernels& kernels = attention_kernels(task.bf16);
    n_threads = threads_for(task, 1, n_threads);
    const std::int64_t rows = task.n_heads / task.n_key_heads * task.n_queries;
    if (rows <= kFewRows) return attend_few(task, kernels, rows, n_threads);
    // Blocks of queries small enough that every thread finds some, and no smaller, since keys are packed for each.
    const std::int64_t heads = task.n_batches * task.n_heads;
    const std::int64_t wanted = (8 * n_threads + heads - 1) / heads;
    const std::int64_t together = kernels.rows(task);
    std::int64_t size = std::clamp<std::int64_t>((task.n_queries + wanted - 1) / wanted, 48, kAttentionQueries);
    size = (size + together - 1) / together * together;
    const std::int64_t blocks = (task.n_queries + size - 1) / size;
    share_out(task, kernels, heads * blocks, n_threads, [&](std::int64_t item, void* scratch) {
        // The last queries see the most keys: they go first, so that short work fills up the end.
        const std::int64_t block = blocks - 1 - item / heads, head = item % heads;
        kernels.forward(task, head / task.n_heads, head % task.n_heads, block * size,
                        std::min((block + 1) * size, task.n_queries), scratch);
    });
}

void attend_backward(const Attention& task, const AttentionArray& out_gradient, const AttentionArray& q_gradient,
                     const AttentionArray& k_gradient, const AttentionArray& v_gradient,
                     const AttentionTerm<float>& bias_gradient, int n_threads) {
    if (task.n_batches * task.n_key_heads == 0) return;
    const AttentionKernels& kernels = attention_kernels(task.bf16);
    n_threads = threads_for(task, 2.5, n_threads);
    const std::int64_t heads = task.n_batches * task.n_heads, all_rows = heads * task.n_queries;
    const std::int64_t query_blocks = (task.n_queries + kAttentionBlock - 1) / kAttentionBlock;
    const std::int64_t key_blocks = (task.n_keys + kAttentionBlock - 1) / kAttentionBlock;
    const std::int64_t group = task.n_heads / task.n_key_heads;
    std::vector<float> delta(static_cast<std::size_t>(all_rows));
    const std::int64_t row_of = task.bf16 ? 32 : 16;
    const AlignedBytes packed(heads * query_blocks * kernels.packed_bytes(task));
    AttentionGradients gradients{out_gradient, delta.data(), nullptr,       (task.width + row_of - 1) / row_of * row_of,
                                 k_gradient,   v_gradient,   bias_gradient, packed.data};
    // Sums for queries' gradients go where those are to be, if these are rows of floats of the right width.
    const bool in_place = !task.bf16 && task.width % 16 == 0 && q_gradient.column == 1 &&
                          q_gradient.time == task.width && q_gradient.head == task.n_queries * task.width &&
                          q_gradient.batch == task.n_heads * task.n_queries * task.width;
    std::unique_ptr<AlignedBytes> sums;
    if (in_place) {
        gradients.q = static_cast<float*>(q_gradient.data);
    } else {
        sums = std::make_unique<AlignedBytes>(all_rows * gradients.q_stride * 4);
        gradients.q = static_cast<float*>(sums->data);
    }
    share_out(task, kernels, heads * query_blocks, n_threads, [&](std::int64_t item, void* scratch) {
        const std::int64_t head = item / query_blocks, begin = item % query_blocks * kAttentionBlock;
        const std::int64_t end = std::min(begin + kAttentionBlock, task.n_queries);
        const std::int64_t row = head * task.n_queries;
        std::fill(gradients.q + (row + begin) * gradients.q_stride, gradients.q + (row + end) * gradients.q_stride,
                  0.0f);
        kernels.deltas(task, out_gradient, head / task.n_heads, head % task.n_heads, begin, end, delta.data(),
                       packed.data, scratch);
    });

    // Each block of keys meets the blocks of queries that see it, in order. What it adds to the queries' gradients
    // waits until the block of keys before it has added its own: turns[head, block of queries] is the block of keys
    // whose turn it is. Blocks of keys are begun in order, so that the one that is waited for is always in somebody's
    // hands.
    std::vector<std::atomic<std::int64_t>> turns(static_cast<std::size_t>(heads * query_blocks));
    const auto keys_of = [&](std::int64_t batch, std::int64_t block) {
        const KeyRange keys = attention_keys(task, batch, block * kAttentionBlock,
                                             std::min((block + 1) * kAttentionBlock, task.n_queries));
        return KeyRange{keys.begin / kAttentionBlock, (keys.end + kAttentionBlock - 1) / kAttentionBlock};
    };
    for (std::int64_t head = 0; head < heads; ++head) {
        for (std::int64_t block = 0; block < query_blocks; ++block) {
            turns[static_cast<std::size_t>(head * query_blocks + block)] = keys_of(head / task.n_heads, block).begin;
        }
    }
    const Units units(task, bias_gradient);
    // As many units at a time as there are threads: then each thread mostly has one to itself, and does not wait.
    const std::int64_t abreast = std::min<std::int64_t>(units.count(), n_threads);
    share_out(task, kernels, units.count() * key_blocks, n_threads, [&](std::int64_t item, void* scratch) {
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
                    auto& turn = turns[static_cast<std::size_t>((batch * task.n_heads + head) * query_blocks + block)];
                    for (int spins = 0; turn.load(std::memory_order_acquire) != key_block; ++spins) {
                        if (spins > 1000) std::this_thread::yield();
                    }
                    kernels.add_queries(task, gradients, scratch);
                    turn.store(key_block + 1, std::memory_order_release);
                }
            }
            kernels.end_keys(task, gradients, scratch);
        });
    });
    if (in_place) return;
    parallel_shares(all_rows, n_threads, [&](long long begin, long long end, int) {
        for (long long row = begin; row < end; ++row) {
            const std::int64_t head = row / task.n_queries;
            kernels.end_query(task, q_gradient, head / task.n_heads, head % task.n_heads, row % task.n_queries,
                              gradients.q + row * gradients.q_stride);
        }
    });
}

void attention_maps(const Attention& task, const std::int64_t* heads, std::int64_t n_heads, const std::int64_t* rows,
                    std::int64_t n_rows, float* weights, int n_threads) {
    const AttentionKernels& kernels = attention_kernels(task.bf16);
    share_out(task, kernels, task.n_batches * n_heads * n_rows, n_threads, [&](std::int64_t item, void* scratch) {
        const std::int64_t batch = item / (n_heads * n_rows), head = item / n_rows % n_heads;
        kernels.weights(task, batch, heads[head], rows[item % n_rows], weights + item * task.n_keys, scratch);
    });
}

void attention_row_entropies(const Attention& task, float* entropies, int n_threads) {
    const AttentionKernels& kernels = attention_kernels(task.bf16);
    n_threads = threads_for(task, 1, n_threads);
    const std::int64_t heads = task.n_batches * task.n_heads;
    const std::int64_t blocks = (task.n_queries + kAttentionBlock - 1) / kAttentionBlock;
    share_out(task, kernels, heads * blocks, n_threads, [&](std::int64_t item, void* scratch) {
        const std::int64_t begin = item % blocks * kAttentionBlock, head = item / blocks;
        kernels.entropies(task, head / task.n_heads, head % task.n_heads, begin,
                          std::min(begin + kAttentionBlock, task.n_queries), entropies, scratch);
    });
}

}  // namespace firth
