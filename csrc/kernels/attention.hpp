// The kernels of tasks/attention.hpp. They never store a square matrix of weights (Dao 2023).
#pragma once

#include "runtime/dispatch.hpp"
#include "tasks/attention.hpp"

namespace firth {

// The gradients while they are computed.
struct AttentionBackward : AttentionGradients {
    const float* delta;     // (B, H, Tq) dot products of out and its gradient: from `deltas`
    float* q_sums;          // (B, H, Tq, q_stride) sums for the gradients of q, which begin at zero: see `end_query`
    std::int64_t q_stride;  // a multiple of 32, or of 16 for float32
    void* packed;           // from `deltas`, for all blocks of kAttentionBlock queries
};

// Most queries of one call of `forward`.
constexpr int kAttentionQueries = 192;
// Queries, and keys, of one block of the backward pass.
constexpr int kAttentionBlock = 64;
// Keys of one segment: several threads may work on one query, each on another segment.
constexpr std::int64_t kAttentionSegment = 512;

// The smallest range with all keys that any of the queries [begin, end) sees.
struct KeyRange {
    std::int64_t begin, end;
};
static inline KeyRange attention_keys(const Attention& task, std::int64_t batch, std::int64_t begin, std::int64_t end) {
    const std::int64_t length = task.lengths ? task.lengths[batch] : task.n_keys;
    const std::int64_t first = begin + task.n_keys - task.n_queries, last = end - 1 + task.n_keys - task.n_queries;
    KeyRange range{0, length};
    if (task.causal && last + 1 < range.end) range.end = last + 1;
    if (task.window >= 0) {
        if (first - task.window > range.begin) range.begin = first - task.window;
        if (last + task.window + 1 < range.end) range.end = last + task.window + 1;
    }
    if (range.end < range.begin) range.end = range.begin;
    return range;
}

// Floats of a partial result of `few` for one row.
static inline std::int64_t attention_partial(const Attention& task) { return (task.value_width + 15) / 16 * 16 + 16; }

struct AttentionKernels {
    // Bytes of scratch, aligned to 64, that a thread needs for any of the other kernels.
    std::int64_t (*scratch_bytes)(const Attention& task);

    // How many queries `forward` works on at once. Every block begins at a multiple of it, so that results do not
    // depend on the size of blocks.
    std::int64_t (*rows)(const Attention& task);

    // Computes out and lse of the queries [begin, end), at most kAttentionQueries.
    void (*forward)(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin, std::int64_t end,
                    void* scratch);

    // For few queries and many keys: each key is read once for all heads that share it. Computes the partial results of
    // the keys [begin, end), one for each of the H / Hk heads and Tq queries: partial (H / Hk * Tq, attention_partial)
    // holds the sum of weights times values, the sum of weights, and the greatest score in units of log 2. `end` is a
    // multiple of 16, or the end of the keys that any of the queries sees.
    void (*few)(const Attention& task, std::int64_t batch, std::int64_t key_head, std::int64_t begin, std::int64_t end,
                float* partial, void* scratch);
    // Merges the n partial results of each row of a key head into out and lse. Overwrites the partial results.
    void (*merge)(const Attention& task, std::int64_t batch, std::int64_t key_head, float* partials, std::int64_t n);

    // Bytes that `deltas` packs of each block of queries, a multiple of 64.
    std::int64_t (*packed_bytes)(const Attention& task);

    // Computes delta, the dot products of out and its gradient, for the queries [begin, end): a block of
    // kAttentionBlock, or fewer at the end. Also packs the block for `meet`.
    void (*deltas)(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                   std::int64_t begin, std::int64_t end, float* delta, void* packed, void* scratch);

    // The backward pass of a block of keys [begin, end) of a key head, all with one scratch: begin_keys; then, for each
    // block of queries of all heads that share the key head, meet and add_queries; then end_keys. `meet` leaves in
    // scratch what add_queries adds to the gradients of the queries, so that the caller can add in a fixed order.
    void (*begin_keys)(const Attention& task, const AttentionBackward& gradients, std::int64_t batch,
                       std::int64_t key_head, std::int64_t begin, std::int64_t end, void* scratch);
    void (*meet)(const Attention& task, const AttentionBackward& gradients, std::int64_t head, std::int64_t begin,
                 std::int64_t end, void* scratch);
    void (*add_queries)(const Attention& task, const AttentionBackward& gradients, void* scratch);
    void (*end_keys)(const Attention& task, const AttentionBackward& gradients, void* scratch);

    // Writes the gradient of query i from its row of q_sums, when all keys have been added. Overwrites the row.
    void (*end_query)(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                      std::int64_t i, float* sums);

    // Weights (Tk) of one query, recomputed from its lse, without dropout.
    void (*weights)(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t query, float* weights,
                    void* scratch);

    // Entropies, in nats, of the weights of the queries [begin, end), at most kAttentionQueries, from their lse.
    void (*entropies)(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                      std::int64_t end, float* entropies, void* scratch);
};
FIRTH_BF16_KERNEL_TABLE(AttentionKernels, attention_kernels)

}  // namespace firth
