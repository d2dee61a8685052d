// Attention's kernels as a table: see attention/forward.hpp and attention/backward.hpp. Between two products, the
// scores of six rows and a chunk of keys stay in the first-level cache, where they become weights. Each row's greatest
// score and its sums of weights, one per lane, are carried from chunk to chunk (Milakov & Gimelshein 2018; Dao et al.
// 2022).
//
// With AMX, bf16 is computed in products of tiles instead.
//
// Masked keys never affect a result, even if they contain NaN: their weights are exactly zero, and where a zero would
// be multiplied with a NaN or an infinity, the product is computed one visible pair at a time.

#include "kernels/attention.hpp"

#include "kernels/attention/backward.hpp"
#include "kernels/attention/forward.hpp"

namespace firth::FIRTH_ISA {
namespace {

std::int64_t attention_scratch_bytes(const Attention& task) {
    Arena forward{nullptr}, backward{nullptr};
    ForwardRoom(forward, task, kAttentionQueries);
    BackwardRoom(backward, task);
    std::int64_t most = forward.used > backward.used ? forward.used : backward.used;
#if defined(FIRTH_TILES)
    Arena tiles{nullptr}, tiles_back{nullptr};
    TileRoom(tiles, task);
    TileBackwardRoom(tiles_back, task);
    most = tiles.used > most ? tiles.used : most;
    most = tiles_back.used > most ? tiles_back.used : most;
#endif
    return most;
}

}  // namespace

const AttentionKernels attention_kernels{
    .scratch_bytes = attention_scratch_bytes,
    .rows = attention_rows,
    .forward = attention_forward,
    .few = attention_few,
    .merge = attention_merge,
    .packed_bytes = attention_packed_bytes,
    .deltas = attention_deltas,
    .begin_keys = attention_begin_keys,
    .meet = attention_meet,
    .add_queries = attention_add_queries,
    .end_keys = attention_end_keys,
    .end_query = attention_end_query,
    .weights = attention_weights,
    .entropies = attention_entropies,
};

}  // namespace firth::FIRTH_ISA
