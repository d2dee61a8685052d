// The forward pass in tiles. The scores of kPair queries and a chunk of keys are computed, become weights in bf16 in
// the same memory, and are multiplied with the values.
#pragma once

#include "kernels/arena.hpp"
#include "kernels/attention/tiles.hpp"

#if defined(FIRTH_TILES)

namespace firth::FIRTH_ISA {
namespace {

// Scores of a row, times `unit` in units of log 2, become weights of n keys: floats (Wide), or bf16 in the first half
// of the same memory. Returns the sums of the weights, one per lane, before dropout and rounding.
template <bool Drop, bool Wide>
FIRTH_INLINE Vec weights_of_row(float* scores, std::int64_t n, float unit, float most, const Dropout& dropout,
                                std::uint32_t key, std::int64_t begin) {
    Vec sums[2] = {};
    for (std::int64_t j = 0; j < n; j += 2 * kWidth) {
        Vec weights[2];
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            // Subtracted first, so that the weight of the greatest score is 1 however large it is.
            weights[v] = weight_of((load(scores + j + v * kWidth) - most) * unit);
            sums[v] += weights[v];
            if constexpr (Drop) {
                const Vec kept = dropout.at(key, begin + j + v * kWidth);
                // A dropped weight is zero even if it was NaN: its value is not added at all.
                weights[v] = select(kept == 0.0f, Vec{}, weights[v] * kept);
            }
        }
        if constexpr (Wide) {
            store(scores + j, weights[0]);
            store(scores + j + kWidth, weights[1]);
        } else {
            auto* const to = reinterpret_cast<std::uint16_t*>(scores) + j;
#if defined(__AVX512BF16__)
            _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(
                                        reinterpret_cast<__m512>(weights[1]), reinterpret_cast<__m512>(weights[0]))));
#else
            store_bf16(to, weights[0]);
            store_bf16(to + kWidth, weights[1]);
#endif
        }
    }
    return sums[0] + sums[1];
}

struct TileRoom {
    std::uint16_t *queries, *copies;
    std::uint32_t *keys, *values;
    float *scores, *wide;
    Gathered rows;

    TileRoom(Arena& arena, const Attention& task) {
        const std::int64_t key = in_pairs_of_tiles(task.width), value = in_pairs_of_tiles(task.value_width);
        const std::int64_t n = in_pairs_of_tiles(kAttentionQueries);
        queries = arena.take<std::uint16_t>(n * key);
        copies = arena.take<std::uint16_t>(kTileChunk * (key > value ? key : value));
        keys = arena.take<std::uint32_t>(kTileChunk * key / 2);
        values = arena.take<std::uint32_t>(kTileChunk * value / 2);
        scores = arena.take<float>(kPair * kTileChunk);
        wide = arena.take<float>(kTileChunk * value);
        rows.values = arena.take<float>(n * value);
        rows.stride = value;
        rows.sums = arena.take<float>(n * kWidth);
        rows.most = arena.take<float>(n);
    }
};

// The packed values of a chunk.
struct TileValues {
    const std::uint32_t* tiles;
    std::int64_t numbers;                    // lanes of kPair values
    signed char finite[kTileChunk / kPair];  // whether kPair values are all finite: 1 yes, 0 no, -1 not known yet

    // Whether a product of zero with the rows [first, last) is zero, and with the others that share tiles with them.
    bool all_finite(std::int64_t first, std::int64_t last) {
        bool all = true;
        for (std::int64_t i = first / kPair; i * kPair < last; ++i) {
            if (finite[i] < 0) finite[i] = FIRTH_ISA::all_finite(tiles + i * numbers, numbers) ? 1 : 0;
            all = all && finite[i];
        }
        return all;
    }
};

// Products of queries and keys times this are scores in units of log 2. It is 1 where the products are scaled before
// they become weights: terms are added to scaled scores, and only a positive factor keeps the greatest score the
// greatest.
FIRTH_INLINE float unit_of(const Attention& task) {
    const float unit = task.scale * kLog2e;
    return has_terms(task) || !(unit > 0) ? 1.0f : unit;
}

// `some` queries (up to kPair), beginning with `query`, which is row `first` of room.rows, attend to the keys [low,
// high) of the chunk that begins with key `from`. room.scores holds their products.
FIRTH_INLINE void gather_in_tiles(Tiles& tiles, const Attention& task, const Dropout& dropout, const Query& query,
                                  int some, std::int64_t low, std::int64_t high, std::int64_t from, std::int64_t first,
                                  const TileRoom& room, TileValues& values) {
    const std::int64_t n = in_pairs_of_tiles(high - low), end = low + n;
    const bool terms = has_terms(task);
    const float unit = unit_of(task);
    bool partial = false;
    float most[kPair];
    alignas(64) float before[kPair] = {};
    for (int r = 0; r < some; ++r) {
        float* const s = room.scores + r * kTileChunk;
        const Query of{query.batch, query.head, query.i + r};
        const KeyRange seen = attention_keys(task, of.batch, of.i, of.i + 1);
        if (unit == 1) {
            for (std::int64_t j = 0; j < n; j += kWidth) store(s + j, load(s + j) * (task.scale * kLog2e));
        }
        if (terms || seen.begin > low || seen.end < end) partial |= settle(task, of, low, end, s);
        Vec greatest[2] = {splat(-kInfinity), splat(-kInfinity)};
        for (std::int64_t j = 0; j < n; j += 2 * kWidth) {
            greatest[0] = max(load(s + j), greatest[0]);
            greatest[1] = max(load(s + j + kWidth), greatest[1]);
        }
        const float found = lanes_max(max(greatest[0], greatest[1])), earlier = room.rows.most[first + r];
        most[r] = found > earlier ? found : earlier;
        room.rows.most[first + r] = most[r];
        if (most[r] == -kInfinity) most[r] = 0;  // no key seen so far: every weight is 0
        before[r] = (earlier - most[r]) * unit;
    }
    bool change = false;
    for (int r = 0; r < kPair; r += kWidth) {
        const Vec x = weight_of(load(before + r));
        store(before + r, x);
    }
    const bool wide = (partial || task.dropout > 0) && !values.all_finite(low - from, high - from);
    const std::int64_t stride = room.rows.stride;
    float* const to = room.rows.values + first * stride;
    const auto weigh_row = [&](int r) FIRTH_INLINE_LAMBDA {
        float* const s = room.scores + r * kTileChunk;
        if (task.dropout > 0) {
            const std::uint32_t key = dropout.row_key(task, {query.batch, query.head, query.i + r});
            return wide ? weights_of_row<true, true>(s, n, unit, most[r], dropout, key, low)
                        : weights_of_row<true, false>(s, n, unit, most[r], dropout, key, low);
        }
        return wide ? weights_of_row<false, true>(s, n, unit, most[r], dropout, 0, low)
                    : weights_of_row<false, false>(s, n, unit, most[r], dropout, 0, low);
    };
    for (int r = 0; r < some; ++r) {
        float* const sums = room.rows.sums + (first + r) * kWidth;
        store(sums, load(sums) * before[r] + weigh_row(r));
        change |= before[r] != 1;
    }
    if (wide) {
        const Rows floats = rows_of(task, task.v, query.batch, query.head / (task.n_heads / task.n_key_heads), low,
                                    high - low, task.value_width, true, room.wide);
        weigh_pairs(some, room.scores, kTileChunk, 1, floats, high - low, before, 1, to, stride,
                    static_cast<int>(padded(task.value_width) / kWidth));
        return;
    }
    if (change) {
        for (int r = 0; r < some; ++r) {
            for (std::int64_t d = 0; d < stride; d += kWidth) {
                store(to + r * stride + d, load(to + r * stride + d) * before[r]);
            }
        }
    }
    const std::int64_t next = stride / kTile * kTileLanes;
    const std::uint32_t* columns = values.tiles + (low - from) / kPair * next;
    for (std::int64_t d = 0; d < stride; d += kPair, columns += 2 * kTileLanes) {
        if (some > kTile) {
            multiply<2, true>(tiles, room.scores, 4 * kTileChunk, columns, next, kTileLanes, n / kPair, to + d, stride);
        } else {
            multiply<1, true>(tiles, room.scores, 4 * kTileChunk, columns, next, kTileLanes, n / kPair, to + d, stride);
        }
    }
}

void forward_in_tiles(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                      std::int64_t end, const TileRoom& room) {
    Tiles tiles;
    const Dropout dropout(task);
    const std::int64_t key_head = head / (task.n_heads / task.n_key_heads);
    const auto width = static_cast<int>(in_pairs_of_tiles(task.width));
    const auto value_width = static_cast<int>(in_pairs_of_tiles(task.value_width));
    room.rows.clear(in_pairs_of_tiles(end - begin));
    half_rows_of(task.q, batch, head, begin, end - begin, task.width, true, room.queries);
    const KeyRange all = attention_keys(task, batch, begin, end);
    // In whole tiles, so that a tile holds the same keys however queries are cut into blocks.
    const std::int64_t even = in_pairs_of_tiles(all.end), last = even < task.n_keys ? even : task.n_keys;
    for (std::int64_t chunk = all.begin / kTileChunk * kTileChunk; chunk < all.end; chunk += kTileChunk) {
        const std::int64_t from = chunk > all.begin ? chunk : all.begin / kPair * kPair;
        const std::int64_t to = chunk + kTileChunk < last ? chunk + kTileChunk : last;
        pack_columns(half_rows_of(task.k, batch, key_head, from, to - from, task.width, false, room.copies), to - from,
                     width, room.keys);
        pack_rows(half_rows_of(task.v, batch, key_head, from, to - from, task.value_width, false, room.copies),
                  to - from, value_width, room.values);
        TileValues values{room.values, value_width / kTile * kTileLanes, {}};
        for (auto& finite : values.finite) finite = -1;
        for (std::int64_t i = begin; i < end; i += kPair) {
            const int some = end - i < kPair ? static_cast<int>(end - i) : kPair;
            const KeyRange seen = attention_keys(task, batch, i, i + some);
            const std::int64_t low = seen.begin > from ? from + (seen.begin - from) / kPair * kPair : from;
            const std::int64_t high = seen.end < to ? seen.end : to;
            if (low >= high) continue;
            const std::int64_t blocks = width / kPair;
            const std::uint16_t* const queries = room.queries + (i - begin) * width;
            for (std::int64_t j = low; j < high; j += kPair) {
                const std::uint32_t* const columns = room.keys + (j - from) / kTile * blocks * kTileLanes;
                float* const scores = room.scores + (j - low);
                if (some > kTile) {
                    multiply<2, false>(tiles, queries, 2 * width, columns, kTileLanes, blocks * kTileLanes, blocks,
                                       scores, kTileChunk);
                } else {
                    multiply<1, false>(tiles, queries, 2 * width, columns, kTileLanes, blocks * kTileLanes, blocks,
                                       scores, kTileChunk);
                }
            }
            gather_in_tiles(tiles, task, dropout, {batch, head, i}, some, low, high, from, i - begin, room, values);
        }
    }
    for (std::int64_t i = 0; i < end - begin; ++i) {
        finish(task, {batch, head, begin + i}, lanes_sum(load(room.rows.sums + i * kWidth)),
               room.rows.most[i] * unit_of(task), room.rows.values + i * room.rows.stride);
    }
}

}  // namespace
}  // namespace firth::FIRTH_ISA

#endif
