// The backward pass: P and dS are recomputed from the log-sum-exp, block by block.
#pragma once

#include "kernels/arena.hpp"
#include "kernels/attention/backward_tiles.hpp"
#include "kernels/attention/scores.hpp"

namespace firth::FIRTH_ISA {
namespace {

struct BackwardRoom {
    struct State {
        std::int64_t batch, key_head, begin;
        int n;  // keys
        std::int64_t head, first;
        int n_queries;
        bool halves;  // keys, values, queries and gradients are multiplied as bf16
        bool pairs;   // some weights are zero and must not be multiplied with what is not finite
        bool wide;    // slopes were not rounded, as queries or gradients are not finite
    };
    State* state;
    float *keys_packed, *values_packed;  // panels
    float *keys, *values, *queries, *outs;
    float *weights, *slopes;  // (kAttentionBlock, kAttentionBlock) of the current block: P and dS
    float *key_sums, *value_sums;
    // Interleaved rows of keys, queries and gradients of out; P and dS with two queries per lane, dS with two keys per
    // lane.
    float *key_pairs, *query_pairs, *out_pairs, *weight_pairs, *slope_pairs, *slope_halves;

    BackwardRoom(Arena& arena, const Attention& task) {
        const std::int64_t key = padded(task.width), value = padded(task.value_width), n = kAttentionBlock;
        state = arena.take<State>(1);
        keys_packed = arena.take<float>(n * task.width);
        values_packed = arena.take<float>(n * task.value_width);
        keys = arena.take<float>(n * key);
        values = arena.take<float>(n * value);
        queries = arena.take<float>(n * key);
        outs = arena.take<float>(n * value);
        weights = arena.take<float>(n * n);
        slopes = arena.take<float>(n * n);
        key_sums = arena.take<float>(n * key);
        value_sums = arena.take<float>(n * value);
        key_pairs = arena.take<float>(n / 2 * key);
        query_pairs = arena.take<float>(n / 2 * key);
        out_pairs = arena.take<float>(n / 2 * value);
        weight_pairs = arena.take<float>(n / 2 * n);
        slope_pairs = arena.take<float>(n / 2 * n);
        slope_halves = arena.take<float>(n * n / 2);
    }
};

BackwardRoom backward_room(const Attention& task, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    return BackwardRoom(arena, task);
}

alignas(64) constexpr float kOnes[kRows] = {1, 1, 1, 1, 1, 1};

// to += scale * weights^T from, where weights has a row for each of n rows of `from`, and rows of `to` are its columns.
template <class Arithmetic>
FIRTH_INLINE void add_transposed(const float* weights, const Rows& from, int n, float scale, float* to, int n_to,
                                 int width, bool pairs) {
    const std::int64_t stride = padded(width);
    for (int first = 0; first < n_to; first += kRows) {
        const int some = n_to - first < kRows ? n_to - first : kRows;
        if (pairs) {
            weigh_pairs(some, weights + first, 1, kAttentionBlock, from, n, kOnes, scale, to + first * stride, stride,
                        static_cast<int>(stride / kWidth));
            continue;
        }
        with_count<kRows>(some, [&](auto count) FIRTH_INLINE_LAMBDA {
            weigh<Arithmetic, decltype(count)::n>(weights + first, 1, kAttentionBlock, from, n, kOnes, scale,
                                                  to + first * stride, stride, static_cast<int>(stride / kWidth));
        });
    }
}

// Gradients of scores, dS = P (dP - delta) with dP = dO v^T, of R queries by the block's keys.
template <class Arithmetic, int R>
FIRTH_INLINE bool slopes_of(const Attention& task, const AttentionBackward& gradients, const BackwardRoom& room,
                            const Dropout& dropout, const Query* queries, const float* const* rows,
                            const float* const* outs, float* weights, float* slopes) {
    const BackwardRoom::State& state = *room.state;
    const std::int64_t begin = state.begin;
    const int whole = (state.n + kWidth - 1) / kWidth * kWidth;
    const int key_lanes = task.width / Arithmetic::kNumbers, value_lanes = task.value_width / Arithmetic::kNumbers;
    for (std::int64_t j = 0; j < state.n; j += kPanel) {
        score_panel<Arithmetic, R>(rows, room.keys_packed + j * key_lanes, key_lanes, task.scale * kLog2e, weights + j,
                                   kAttentionBlock);
        score_panel<Arithmetic, R>(outs, room.values_packed + j * value_lanes, value_lanes, 1, slopes + j,
                                   kAttentionBlock);
    }
    bool any = false;
    for (int r = 0; r < R; ++r) {
        float* const p = weights + r * kAttentionBlock;
        float* const s = slopes + r * kAttentionBlock;
        const bool partial = settle(task, queries[r], begin, begin + whole, p);
        any |= partial;
        const std::int64_t row = (queries[r].batch * task.n_heads + queries[r].head) * task.n_queries + queries[r].i;
        const float lse = task.lse[row] == -kInfinity ? 0.0f : task.lse[row] * kLog2e;
        const float delta = gradients.delta[row];
        const std::uint32_t key = task.dropout > 0 ? dropout.row_key(task, queries[r]) : 0;
        for (int j = 0; j < whole; j += kWidth) {
            const Vec x = load(p + j);
            // At most 1, also where scores are so huge that lse has lost their differences.
            Vec weight = exp2_of(min(Vec{}, x - lse)), gradient = load(s + j);
            const VecInt hidden = x == -kInfinity;
            if (partial) weight = select(hidden, Vec{}, weight);
            Vec dropped = weight;
            if (task.dropout > 0) {
                const Vec kept = dropout.at(key, begin + j);
                gradient = select(kept == 0.0f, Vec{}, gradient * kept);
                dropped = select(kept == 0.0f, Vec{}, weight * kept);
            }
            Vec slope = weight * (gradient - delta);
            if (partial) slope = select(hidden, Vec{}, slope);
            store(p + j, dropped);
            store(s + j, slope);
        }
    }
    return any;
}

std::int64_t attention_packed_bytes([[maybe_unused]] const Attention& task) {
#if defined(FIRTH_TILES)
    if (task.bf16) {
        Arena arena{nullptr};
        PackedQueries(arena, task);
        return arena.used;
    }
#endif
    return 0;
}

void attention_deltas(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                      std::int64_t begin, std::int64_t end, float* delta, [[maybe_unused]] void* packed,
                      void* scratch) {
#if defined(FIRTH_TILES)
    if (task.bf16) {
        pack_queries(task, gradient, batch, head, begin, end, packed, tile_backward_room(task, scratch));
    }
#endif
    const BackwardRoom room = backward_room(task, scratch);
    const auto n = static_cast<int>(end - begin), width = task.value_width;
    const Rows outs = rows_of(task, task.out, batch, head, begin, n, width, true, room.values);
    const Rows moves = rows_of(task, gradient, batch, head, begin, n, width, true, room.outs);
    for (int i = 0; i < n; ++i) {
        Vec sums{};
        for (int d = 0; d < width; d += kWidth) sums += load(outs[i] + d) * load(moves[i] + d);
        delta[(batch * task.n_heads + head) * task.n_queries + begin + i] = lanes_sum(sums);
    }
}

void attention_begin_keys(const Attention& task, [[maybe_unused]] const AttentionBackward& gradients,
                          std::int64_t batch, std::int64_t key_head, std::int64_t begin, std::int64_t end,
                          void* scratch) {
    const auto n = static_cast<int>(end - begin);
#if defined(FIRTH_TILES)
    if (task.bf16) {
        return begin_keys_in_tiles(task, batch, key_head, begin, n, tile_backward_room(task, scratch));
    }
#endif
    const BackwardRoom room = backward_room(task, scratch);
    *room.state = {batch, key_head, begin, n, 0, 0, 0, false, false, false};
    for (std::int64_t i = 0; i < n * padded(task.width); ++i) room.key_sums[i] = 0;
    for (std::int64_t i = 0; i < n * padded(task.value_width); ++i) room.value_sums[i] = 0;
#if defined(FIRTH_HALVES)
    room.state->halves = halves(task) && in_pairs(gradients.out, task.value_width);
    if (room.state->halves) {
        pack(pairs_of(task.k, batch, key_head, begin), n, task.width / 2, room.keys_packed);
        pack(pairs_of(task.v, batch, key_head, begin), n, task.value_width / 2, room.values_packed);
        interleaved(task.k, batch, key_head, begin, n, task.width, room.key_pairs);
        return;
    }
#endif
    pack(rows_of(task, task.k, batch, key_head, begin, n, task.width, false, room.keys), n, task.width,
         room.keys_packed);
    pack(rows_of(task, task.v, batch, key_head, begin, n, task.value_width, false, room.values), n, task.value_width,
         room.values_packed);
}

// P and dS of a block, in `room`. True if some of them are hidden.
template <class Arithmetic>
FIRTH_INLINE bool meet(const Attention& task, const AttentionBackward& gradients, std::int64_t head, std::int64_t begin,
                       int n, const BackwardRoom& room, const Rows& queries, const Rows& outs) {
    const Dropout dropout(task);
    const std::int64_t batch = room.state->batch;
    bool partial = false;
    for (int first = 0; first < n; first += kRows) {
        const int some = n - first < kRows ? n - first : kRows;
        const float *of_query[kRows], *of_out[kRows];
        Query of[kRows];
        for (int r = 0; r < some; ++r) {
            of_query[r] = queries[first + r];
            of_out[r] = outs[first + r];
            of[r] = {batch, head, begin + first + r};
        }
        with_count<kRows>(some, [&](auto count) FIRTH_INLINE_LAMBDA {
            partial |= slopes_of<Arithmetic, decltype(count)::n>(task, gradients, room, dropout, of, of_query, of_out,
                                                                 room.weights + first * kAttentionBlock,
                                                                 room.slopes + first * kAttentionBlock);
        });
    }
    if (gradients.bias.data != nullptr) {
        for (int i = 0; i < n; ++i) {
            add_bias(gradients.bias, {batch, head, begin + i}, room.state->begin, room.state->n,
                     room.slopes + i * kAttentionBlock);
        }
    }
    return partial;
}

#if defined(FIRTH_HALVES)

// Two rows of floats become one, in each lane a number of both, rounded.
FIRTH_INLINE void pair_rows(const float* rows, int n, int columns, float* pairs) {
    for (int i = 0; i < n; i += 2) {
        const float* const row = rows + i * kAttentionBlock;
        for (int j = 0; j < columns; j += kWidth) {
            const VecHalf high = i + 1 < n ? narrowed(load(row + kAttentionBlock + j)) : VecHalf{};
            store(pairs + i / 2 * kAttentionBlock + j, paired(narrowed(load(row + j)), high));
        }
    }
}

#endif

void attention_meet(const Attention& task, const AttentionBackward& gradients, std::int64_t head, std::int64_t begin,
                    std::int64_t end, void* scratch) {
    const auto n = static_cast<int>(end - begin);
#if defined(FIRTH_TILES)
    if (task.bf16) return meet_in_tiles(task, gradients, head, begin, n, tile_backward_room(task, scratch));
#endif
    const BackwardRoom room = backward_room(task, scratch);
    BackwardRoom::State& state = *room.state;
    state.head = head;
    state.first = begin;
    state.n_queries = n;
    const auto wide_queries = [&] {
        return rows_of(task, task.q, state.batch, head, begin, n, task.width, true, room.queries);
    };
    const auto wide_outs = [&] {
        return rows_of(task, gradients.out, state.batch, head, begin, n, task.value_width, true, room.outs);
    };
    // Where weights are zero, the other factors must be finite.
    const auto may_meet_zeros = [&] {
        return all_finite(wide_outs(), n, task.value_width) && all_finite(wide_queries(), n, task.width);
    };
#if defined(FIRTH_HALVES)
    if (state.halves) {
        state.pairs = meet<Halves>(task, gradients, head, begin, n, room, pairs_of(task.q, state.batch, head, begin),
                                   pairs_of(gradients.out, state.batch, head, begin)) ||
                      task.dropout > 0;
        state.wide = state.pairs && !may_meet_zeros();
        if (!state.wide) {
            const int whole = (state.n + kWidth - 1) / kWidth * kWidth, pairs = (n + 1) / 2;
            pair_rows(room.weights, n, whole, room.weight_pairs);
            pair_rows(room.slopes, n, whole, room.slope_pairs);
            for (int i = 0; i < n; ++i) {
                const int row = i * kAttentionBlock;
                for (int j = row; j < row + whole; j += kWidth) {
                    store_bf16(reinterpret_cast<std::uint16_t*>(room.slope_halves) + j, load(room.slopes + j));
                }
            }
            const Rows outs = interleaved(gradients.out, state.batch, head, begin, n, task.value_width, room.out_pairs);
            const Rows queries = interleaved(task.q, state.batch, head, begin, n, task.width, room.query_pairs);
            add_transposed<Halves>(room.weight_pairs, outs, pairs, 1, room.value_sums, state.n, task.value_width,
                                   false);
            add_transposed<Halves>(room.slope_pairs, queries, pairs, task.scale, room.key_sums, state.n, task.width,
                                   false);
            return;
        }
        add_transposed<Wide>(room.weights, wide_outs(), n, 1, room.value_sums, state.n, task.value_width, true);
        add_transposed<Wide>(room.slopes, wide_queries(), n, task.scale, room.key_sums, state.n, task.width, true);
        return;
    }
#endif
    const Rows queries = wide_queries(), outs = wide_outs();
    state.pairs = meet<Wide>(task, gradients, head, begin, n, room, queries, outs) || task.dropout > 0;
    const bool pairs = state.pairs && !may_meet_zeros();
    add_transposed<Wide>(room.weights, outs, n, 1, room.value_sums, state.n, task.value_width, pairs);
    add_transposed<Wide>(room.slopes, queries, n, task.scale, room.key_sums, state.n, task.width, pairs);
}

void attention_add_queries(const Attention& task, const AttentionBackward& gradients, void* scratch) {
#if defined(FIRTH_TILES)
    if (task.bf16) return add_queries_in_tiles(task, gradients, tile_backward_room(task, scratch));
#endif
    const BackwardRoom room = backward_room(task, scratch);
    const BackwardRoom::State& state = *room.state;
    const std::int64_t stride = gradients.q_stride;
    float* const to =
        gradients.q_sums + ((state.batch * task.n_heads + state.head) * task.n_queries + state.first) * stride;
    const auto vectors = static_cast<int>(padded(task.width) / kWidth);
    const auto wide_keys = [&] {
        return rows_of(task, task.k, state.batch, state.key_head, state.begin, state.n, task.width, true, room.keys);
    };
    const auto add = [&](auto arithmetic, const float* slopes, std::int64_t row, const Rows& keys,
                         int n) FIRTH_INLINE_LAMBDA {
        for (int first = 0; first < state.n_queries; first += kRows) {
            const int some = state.n_queries - first < kRows ? state.n_queries - first : kRows;
            with_count<kRows>(some, [&](auto count) FIRTH_INLINE_LAMBDA {
                weigh<decltype(arithmetic), decltype(count)::n>(slopes + first * row, row, 1, keys, n, kOnes,
                                                                task.scale, to + first * stride, stride, vectors);
            });
        }
    };
    if (state.pairs) {
        const Rows keys = wide_keys();
        if (!all_finite(keys, state.n, task.width)) {
            weigh_pairs(state.n_queries, room.slopes, kAttentionBlock, 1, keys, state.n, nullptr, task.scale, to,
                        stride, vectors);
            return;
        }
    }
#if defined(FIRTH_HALVES)
    if (state.halves && !state.wide) {
        add(Halves{}, room.slope_halves, kAttentionBlock / 2, Rows{room.key_pairs, padded(task.width)},
            (state.n + 1) / 2);
        return;
    }
#endif
    add(Wide{}, room.slopes, kAttentionBlock, wide_keys(), state.n);
}

void attention_end_keys(const Attention& task, const AttentionBackward& gradients, void* scratch) {
#if defined(FIRTH_TILES)
    if (task.bf16) {
        const TileBackwardRoom tile_room = tile_backward_room(task, scratch);
        const TileBackwardRoom::State& at = *tile_room.state;
        write_transposed(task, gradients.k, at.batch, at.key_head, at.begin, at.n, task.width, task.scale,
                         tile_room.key_sums, tile_room.rows);
        write_transposed(task, gradients.v, at.batch, at.key_head, at.begin, at.n, task.value_width, 1,
                         tile_room.value_sums, tile_room.rows);
        return;
    }
#endif
    const BackwardRoom room = backward_room(task, scratch);
    const BackwardRoom::State& state = *room.state;
    for (int j = 0; j < state.n; ++j) {
        write_row(task, gradients.k, state.batch, state.key_head, state.begin + j, task.width,
                  room.key_sums + j * padded(task.width));
        write_row(task, gradients.v, state.batch, state.key_head, state.begin + j, task.value_width,
                  room.value_sums + j * padded(task.value_width));
    }
}

void attention_end_query(const Attention& task, const AttentionArray& gradient, std::int64_t batch, std::int64_t head,
                         std::int64_t i, float* sums) {
#if defined(FIRTH_TILES)
    if (task.bf16) {  // the scale is still missing
        for (int d = 0; d < task.width; d += kWidth) store(sums + d, load(sums + d) * task.scale);
    }
#endif
    write_row(task, gradient, batch, head, i, task.width, sums);
}

}  // namespace
}  // namespace firth::FIRTH_ISA
