// Of the five products, three have rows of queries on the left: the scores, dP, and the queries' gradients, dS K. The
// other two, dV = P^T dO and dK = dS^T Q, sum over queries. They are computed transposed, dO^T P and Q^T dS: the left
// factors are transposed once for all blocks of keys, and P and dS are rounded to lanes that hold two queries. The
// scale of dQ and dK is applied to the finished sums.
#pragma once

#include "kernels/arena.hpp"
#include "kernels/attention/tiles.hpp"

#if defined(FIRTH_TILES)

namespace firth::FIRTH_ISA {
namespace {

// A block of queries, and gradients of their outputs, packed once for all blocks of keys.
struct PackedQueries {
    std::uint16_t *queries, *outs;  // (width, kAttentionBlock): transposed
    std::int32_t* finite;           // 1 if all of them are, else 0

    PackedQueries(Arena& arena, const Attention& task) {
        finite = arena.take<std::int32_t>(1);
        queries = arena.take<std::uint16_t>(in_pairs_of_tiles(task.width) * kAttentionBlock);
        outs = arena.take<std::uint16_t>(in_pairs_of_tiles(task.value_width) * kAttentionBlock);
    }
};

PackedQueries packed_queries(const Attention& task, void* packed, std::int64_t head, std::int64_t begin) {
    Arena size{nullptr};
    PackedQueries(size, task);
    const std::int64_t blocks = (task.n_queries + kAttentionBlock - 1) / kAttentionBlock;
    Arena arena{static_cast<char*>(packed) + (head * blocks + begin / kAttentionBlock) * size.used};
    return PackedQueries(arena, task);
}

struct TileBackwardRoom {
    struct State {
        std::int64_t batch, key_head, begin;
        int n;  // keys
        std::int64_t head, first;
        int n_queries;
        bool zeros;  // some weights are zero and must not be multiplied with what is not finite
    };
    State* state;
    std::uint32_t *key_columns, *value_columns, *key_rows, *weight_pairs, *slope_pairs;
    std::uint16_t *slope_rows, *queries, *outs, *copies;
    float *weights, *slopes;       // (kAttentionBlock, kAttentionBlock) of the current block: P and dS
    float *key_sums, *value_sums;  // (width, kAttentionBlock): transposed
    float *query_sums, *wide, *rows;

    TileBackwardRoom(Arena& arena, const Attention& task) {
        const std::int64_t key = in_pairs_of_tiles(task.width), value = in_pairs_of_tiles(task.value_width);
        const std::int64_t most = key > value ? key : value, n = kAttentionBlock;
        state = arena.take<State>(1);
        key_columns = arena.take<std::uint32_t>(n * key / 2);
        value_columns = arena.take<std::uint32_t>(n * value / 2);
        key_rows = arena.take<std::uint32_t>(n * key / 2);
        weight_pairs = arena.take<std::uint32_t>(n * n / 2);
        slope_pairs = arena.take<std::uint32_t>(n * n / 2);
        slope_rows = arena.take<std::uint16_t>(n * n);
        queries = arena.take<std::uint16_t>(n * key);
        outs = arena.take<std::uint16_t>(n * value);
        copies = arena.take<std::uint16_t>(n * most);
        weights = arena.take<float>(n * n);
        slopes = arena.take<float>(n * n);
        key_sums = arena.take<float>(n * key);
        value_sums = arena.take<float>(n * value);
        query_sums = arena.take<float>(n * key);
        wide = arena.take<float>(n * most);
        rows = arena.take<float>(kTile * most);
    }
};

TileBackwardRoom tile_backward_room(const Attention& task, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    return TileBackwardRoom(arena, task);
}

// Transposes n rows of a block: to (width, kAttentionBlock). `tiles` is scratch of the same size. Returns whether all
// numbers are finite.
bool pack_transposed(const HalfRows& rows, int n, int width, std::uint32_t* tiles, std::uint16_t* to) {
    pack_rows(rows, n, width, tiles);
    const bool finite = all_finite(tiles, in_pairs_of_tiles(n) / 2 * width);
    for (std::int64_t i = 0; i < in_pairs_of_tiles(n); i += kPair) {
        for (int d = 0; d < width; d += kTile, tiles += kTileLanes) {
            transpose_tile(reinterpret_cast<const std::uint16_t*>(tiles), 2 * kTile, kTile,
                           reinterpret_cast<std::uint32_t*>(to + d * kAttentionBlock + i), kAttentionBlock / 2);
        }
    }
    return finite;
}

void pack_queries(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                  std::int64_t begin, std::int64_t end, void* packed, const TileBackwardRoom& room) {
    const PackedQueries to = packed_queries(task, packed, batch * task.n_heads + head, begin);
    const auto n = static_cast<int>(end - begin);
    const auto width = static_cast<int>(in_pairs_of_tiles(task.width));
    const auto value_width = static_cast<int>(in_pairs_of_tiles(task.value_width));
    const HalfRows queries = half_rows_of(task.q, batch, head, begin, n, task.width, false, room.queries);
    const HalfRows outs = half_rows_of(gradient, batch, head, begin, n, task.value_width, false, room.outs);
    const bool finite = pack_transposed(queries, n, width, room.key_columns, to.queries);
    *to.finite = pack_transposed(outs, n, value_width, room.value_columns, to.outs) && finite ? 1 : 0;
}

void begin_keys_in_tiles(const Attention& task, std::int64_t batch, std::int64_t key_head, std::int64_t begin, int n,
                         const TileBackwardRoom& room) {
    const auto width = static_cast<int>(in_pairs_of_tiles(task.width));
    const auto value_width = static_cast<int>(in_pairs_of_tiles(task.value_width));
    *room.state = {batch, key_head, begin, n, 0, 0, 0, false};
    const HalfRows keys = half_rows_of(task.k, batch, key_head, begin, n, task.width, false, room.copies);
    pack_columns(keys, n, width, room.key_columns);
    pack_rows(keys, n, width, room.key_rows);
    pack_columns(half_rows_of(task.v, batch, key_head, begin, n, task.value_width, false, room.copies), n, value_width,
                 room.value_columns);
    for (int i = 0; i < width * kAttentionBlock; ++i) room.key_sums[i] = 0;
    for (int i = 0; i < value_width * kAttentionBlock; ++i) room.value_sums[i] = 0;
}

// Stores two vectors as lanes of two numbers in bf16.
FIRTH_INLINE void store_pairs(std::uint32_t* to, Vec low, Vec high) {
#if defined(__AVX512BF16__)
    alignas(64) static constexpr std::uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                             21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                             11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const auto both =
        reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low)));
    _mm512_store_si512(to, _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), both));
#else
    for (int l = 0; l < kWidth; ++l) {
        to[l] = narrowed(low[l]) | static_cast<std::uint32_t>(narrowed(high[l])) << 16;
    }
#endif
}

// P and dS of the queries i and i + 1 of a block, from their products with the keys in room.weights and dP in
// room.slopes. `Rest`: keys may be hidden or dropped, there may be terms, and P and dS are left in room.weights and
// room.slopes as well. Returns whether keys are hidden.
template <bool Rest>
FIRTH_INLINE bool slopes_in_tiles(const Attention& task, const AttentionBackward& gradients, const Dropout& dropout,
                                  std::int64_t begin, int i, int n, const TileBackwardRoom& room) {
    const TileBackwardRoom::State& state = *room.state;
    const int whole = static_cast<int>(in_pairs_of_tiles(state.n));
    const bool terms = has_terms(task);
    float scale[2], lse[2] = {}, delta[2] = {};
    std::uint32_t key[2] = {};
    bool hidden = false;
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
        float* const p = room.weights + (i + h) * kAttentionBlock;
        float* const s = room.slopes + (i + h) * kAttentionBlock;
        scale[h] = task.scale * kLog2e;
        if (i + h >= n) {  // no query
            scale[h] = 1;
            for (int j = 0; j < whole; j += kWidth) store(p + j, splat(-kInfinity)), store(s + j, Vec{});
            continue;
        }
        const Query query{state.batch, state.head, begin + i + h};
        const std::int64_t row = (query.batch * task.n_heads + query.head) * task.n_queries + query.i;
        lse[h] = task.lse[row] == -kInfinity ? 0.0f : task.lse[row] * kLog2e;
        delta[h] = gradients.delta[row];
        if constexpr (Rest) {
            if (task.dropout > 0) key[h] = dropout.row_key(task, query);
            const KeyRange seen = attention_keys(task, query.batch, query.i, query.i + 1);
            if (terms || seen.begin > state.begin || seen.end < state.begin + whole) {
                if (terms || scale[h] <= 0) {
                    for (int j = 0; j < whole; j += kWidth) store(p + j, load(p + j) * scale[h]);
                    scale[h] = 1;
                }
                hidden |= settle(task, query, state.begin, state.begin + whole, p);
            }
        }
    }
    const int pair = i / 2;
    const std::int64_t at = pair / kTile * (kAttentionBlock / kTile) * kTileLanes + pair % kTile * kTile;
    for (int j = 0; j < whole; j += kWidth) {
        Vec weights[2], slopes[2];
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
            float* const p = room.weights + (i + h) * kAttentionBlock + j;
            float* const s = room.slopes + (i + h) * kAttentionBlock + j;
            const Vec score = load(p);
            Vec gradient = load(s);
            // At most 1, also where scores are so huge that lse has lost their differences.
            Vec weight = weight_of(min(Vec{}, score * scale[h] - lse[h]));
            const VecInt out = score == -kInfinity;
            if constexpr (Rest) weight = select(out, Vec{}, weight);
            weights[h] = weight;
            if constexpr (Rest) {
                if (task.dropout > 0) {
                    const Vec kept = dropout.at(key[h], state.begin + j);
                    gradient = select(kept == 0.0f, Vec{}, gradient * kept);
                    weights[h] = select(kept == 0.0f, Vec{}, weight * kept);
                }
            }
            slopes[h] = weight * (gradient - delta[h]);
            if constexpr (Rest) {
                slopes[h] = select(out, Vec{}, slopes[h]);
                store(p, weights[h]);
                store(s, slopes[h]);
            }
            store_bf16(room.slope_rows + (i + h) * kAttentionBlock + j, slopes[h]);
        }
        const std::int64_t to = at + j / kTile * kTileLanes + j % kTile;
        store_pairs(room.weight_pairs + to, weights[0], weights[1]);
        store_pairs(room.slope_pairs + to, slopes[0], slopes[1]);
    }
    return hidden;
}

// sums += rows^T weights, transposed, one visible pair at a time: where a zero must not meet what is not finite.
void add_pairs_transposed(const float* weights, const Rows& rows, int n, int n_keys, int width, float* sums) {
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n_keys; ++j) {
            const float weight = weights[i * kAttentionBlock + j];
            if (weight == 0) continue;
            for (int d = 0; d < width; ++d) sums[d * kAttentionBlock + j] += weight * rows[i][d];
        }
    }
}

void meet_in_tiles(const Attention& task, const AttentionBackward& gradients, std::int64_t head, std::int64_t begin,
                   int n, const TileBackwardRoom& room) {
    TileBackwardRoom::State& state = *room.state;
    state.head = head;
    state.first = begin;
    state.n_queries = n;
    const Dropout dropout(task);
    const auto width = static_cast<int>(in_pairs_of_tiles(task.width));
    const auto value_width = static_cast<int>(in_pairs_of_tiles(task.value_width));
    const auto queries = static_cast<int>(in_pairs_of_tiles(n)), keys = static_cast<int>(in_pairs_of_tiles(state.n));
    const HalfRows q = half_rows_of(task.q, state.batch, head, begin, n, task.width, n < queries, room.queries);
    const HalfRows out =
        half_rows_of(gradients.out, state.batch, head, begin, n, task.value_width, n < queries, room.outs);
    const PackedQueries packed = packed_queries(task, gradients.packed, state.batch * task.n_heads + head, begin);
    Tiles tiles;
    for (int i = 0; i < queries; i += kPair) {
        for (int j = 0; j < keys; j += kPair) {
            const std::int64_t blocks = width / kPair, value_blocks = value_width / kPair;
            multiply<2, false>(tiles, q[i], 2 * q.stride, room.key_columns + j / kTile * blocks * kTileLanes,
                               kTileLanes, blocks * kTileLanes, blocks, room.weights + i * kAttentionBlock + j,
                               kAttentionBlock);
            multiply<2, false>(
                tiles, out[i], 2 * out.stride, room.value_columns + j / kTile * value_blocks * kTileLanes, kTileLanes,
                value_blocks * kTileLanes, value_blocks, room.slopes + i * kAttentionBlock + j, kAttentionBlock);
        }
    }
    const KeyRange first = attention_keys(task, state.batch, begin, begin + 1);
    const KeyRange last = attention_keys(task, state.batch, begin + n - 1, begin + n);
    const bool rest = has_terms(task) || task.dropout > 0 || gradients.bias.data || last.begin > state.begin ||
                      first.end < state.begin + keys;
    state.zeros = task.dropout > 0;
    if (rest) {
        for (int i = 0; i < queries; i += 2) {
            state.zeros |= slopes_in_tiles<true>(task, gradients, dropout, begin, i, n, room);
        }
        if (gradients.bias.data != nullptr) {
            for (int i = 0; i < n; ++i) {
                add_bias(gradients.bias, {state.batch, head, begin + i}, state.begin, state.n,
                         room.slopes + i * kAttentionBlock);
            }
        }
        if (state.zeros && *packed.finite == 0) {
            const Rows outs =
                rows_of(task, gradients.out, state.batch, head, begin, n, task.value_width, false, room.wide);
            add_pairs_transposed(room.weights, outs, n, state.n, task.value_width, room.value_sums);
            const Rows wide = rows_of(task, task.q, state.batch, head, begin, n, task.width, false, room.wide);
            add_pairs_transposed(room.slopes, wide, n, state.n, task.width, room.key_sums);
            return;
        }
    } else {
        for (int i = 0; i < queries; i += 2) slopes_in_tiles<false>(task, gradients, dropout, begin, i, n, room);
    }
    constexpr std::int64_t kNext = kAttentionBlock / kTile * kTileLanes;
    for (int j = 0; j < keys; j += kPair) {
        const std::int64_t at = j / kTile * kTileLanes;
        for (int d = 0; d < value_width; d += kPair) {
            multiply<2, true>(tiles, packed.outs + d * kAttentionBlock, 2 * kAttentionBlock, room.weight_pairs + at,
                              kNext, kTileLanes, queries / kPair, room.value_sums + d * kAttentionBlock + j,
                              kAttentionBlock);
        }
        for (int d = 0; d < width; d += kPair) {
            multiply<2, true>(tiles, packed.queries + d * kAttentionBlock, 2 * kAttentionBlock, room.slope_pairs + at,
                              kNext, kTileLanes, queries / kPair, room.key_sums + d * kAttentionBlock + j,
                              kAttentionBlock);
        }
    }
}

void add_queries_in_tiles(const Attention& task, const AttentionBackward& gradients, const TileBackwardRoom& room) {
    const TileBackwardRoom::State& state = *room.state;
    const std::int64_t stride = gradients.q_stride, width = in_pairs_of_tiles(task.width);
    float* const to =
        gradients.q_sums + ((state.batch * task.n_heads + state.head) * task.n_queries + state.first) * stride;
    const std::int64_t keys = in_pairs_of_tiles(state.n), queries = in_pairs_of_tiles(state.n_queries);
    const std::int64_t next = width / kTile * kTileLanes;
    if (state.zeros && !all_finite(room.key_rows, keys / kPair * next)) {
        const Rows wide =
            rows_of(task, task.k, state.batch, state.key_head, state.begin, state.n, task.width, true, room.wide);
        weigh_pairs(state.n_queries, room.slopes, kAttentionBlock, 1, wide, state.n, nullptr, 1, to, stride,
                    static_cast<int>(padded(task.width) / kWidth));
        return;
    }
    Tiles tiles;
    if (queries == state.n_queries) {
        for (std::int64_t i = 0; i < queries; i += kPair) {
            for (std::int64_t d = 0; d < width; d += kPair) {
                multiply<2, true>(tiles, room.slope_rows + i * kAttentionBlock, 2 * kAttentionBlock,
                                  room.key_rows + d / kTile * kTileLanes, next, kTileLanes, keys / kPair,
                                  to + i * stride + d, stride);
            }
        }
        return;
    }
    // Rows beyond the last query belong to another head.
    for (int i = 0; i < state.n_queries; ++i) {
        for (std::int64_t d = 0; d < width; d += kWidth)
            store(room.query_sums + i * width + d, load(to + i * stride + d));
    }
    for (std::int64_t i = 0; i < queries; i += kPair) {
        for (std::int64_t d = 0; d < width; d += kPair) {
            multiply<2, true>(tiles, room.slope_rows + i * kAttentionBlock, 2 * kAttentionBlock,
                              room.key_rows + d / kTile * kTileLanes, next, kTileLanes, keys / kPair,
                              room.query_sums + i * width + d, width);
        }
    }
    for (int i = 0; i < state.n_queries; ++i) {
        for (std::int64_t d = 0; d < width; d += kWidth)
            store(to + i * stride + d, load(room.query_sums + i * width + d));
    }
}

// n rows of an array, from `begin` on: scale times sums that lie transposed.
void write_transposed(const Attention& task, const AttentionArray& array, std::int64_t batch, std::int64_t head,
                      std::int64_t begin, int n, int width, float scale, const float* sums, float* rows) {
    const std::int64_t stride = in_pairs_of_tiles(width);
    for (int first = 0; first < n; first += kTile) {
        for (std::int64_t d = 0; d < stride; d += kTile) {
            for (int i = 0; i < kTile; i += kWidth) {
                for (int l = 0; l < kTile; l += kWidth) {
                    Vec block[kWidth];
#pragma GCC unroll 16
                    for (int k = 0; k < kWidth; ++k) block[k] = load(sums + (d + l + k) * kAttentionBlock + first + i);
                    transpose(block);
#pragma GCC unroll 16
                    for (int k = 0; k < kWidth; ++k) store(rows + (i + k) * stride + d + l, block[k] * scale);
                }
            }
        }
        for (int i = first; i < n && i < first + kTile; ++i) {
            write_row(task, array, batch, head, begin + i, width, rows + (i - first) * stride);
        }
    }
}

}  // namespace
}  // namespace firth::FIRTH_ISA

#endif
