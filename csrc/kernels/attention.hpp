// The kernels of tasks/attention.hpp.
#pragma once

#include "runtime/dispatch.hpp"
#include "tasks/attention.hpp"

namespace firth {

struct AttentionKernels {
    // Bytes of scratch, aligned to 64, that a thread needs for any of what follows.
    std::int64_t (*scratch_bytes)(const Attention& task);

    // Queries that attention_forward works on at once. Every block begins at a multiple of it, so that results do not
    // depend on the size of blocks.
    std::int64_t (*rows)(const Attention& task);

    // out and lse of the queries [begin, end), kAttentionQueries at the most.
    void (*forward)(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin, std::int64_t end,
                    void* scratch);

    // Few queries against many keys, of which each is read once for all heads that share it. What the keys [begin, end)
    // give, for each of the H / Hk heads and Tq queries: partial (H / Hk * Tq, attention_partial) holds the sum of
    // weights times values, the sum of weights, and the greatest score in units of log 2. `end` is a multiple of 16, or
    // the end of the keys that any of the queries sees.
    void (*few)(const Attention& task, std::int64_t batch, std::int64_t key_head, std::int64_t begin, std::int64_t end,
                float* partial, void* scratch);
    // Merges n partial results of the rows of a key head into out and lse; overwrites them.
    void (*merge)(const Attention& task, std::int64_t batch, std::int64_t key_head, float* partials, std::int64_t n);

    // Bytes that attention_deltas packs of each block of queries, a multiple of 64.
    std::int64_t (*packed_bytes)(const Attention& task);

    // out . gradient of out for the queries [begin, end), a block of kAttentionBlock of them, or fewer at the end.
    // Packs the block for attention_meet, too.
    void (*deltas)(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                   std::int64_t begin, std::int64_t end, float* delta, void* packed, void* scratch);

    // Backward: a block of keys [begin, end) of a key head is begun, meets blocks of queries of all the heads that
    // share it, one after the other, and is ended, all with one scratch. Meeting leaves in scratch what the queries'
    // gradients take, and attention_add_queries adds it: so that who calls may see to it that they are added in order.
    void (*begin_keys)(const Attention& task, const AttentionGradients& gradients, std::int64_t batch,
                       std::int64_t key_head, std::int64_t begin, std::int64_t end, void* scratch);
    void (*meet)(const Attention& task, const AttentionGradients& gradients, std::int64_t head, std::int64_t begin,
                 std::int64_t end, void* scratch);
    void (*add_queries)(const Attention& task, const AttentionGradients& gradients, void* scratch);
    void (*end_keys)(const Attention& task, const AttentionGradients& gradients, void* scratch);

    // The gradient of query i, from its row of AttentionGradients::q when all keys have been added; overwrites the row.
    void (*end_query)(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                      std::int64_t i, float* sums);

    // Weights of one query, recomputed from its lse: (Tk). Without dropout.
    void (*weights)(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t query, float* weights,
                    void* scratch);

    // Entropies, in nats, of the weights of the queries [begin, end), kAttentionQueries at the most, from their lse.
    void (*entropies)(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                      std::int64_t end, float* entropies, void* scratch);
};
FIRTH_BF16_KERNEL_TABLE(AttentionKernels, attention_kernels)

}  // namespace firth
