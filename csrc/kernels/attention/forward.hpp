// The forward pass, and weights and entropies recomputed from its log-sum-exp.
#pragma once

#include "kernels/arena.hpp"
#include "kernels/attention/forward_tiles.hpp"
#include "kernels/attention/scores.hpp"

namespace firth::FIRTH_ISA {
namespace {

// Scores of R rows and the keys [begin, end), a multiple of kWidth of them, become weights. `before` becomes the
// factors for the rows' earlier sums.
template <int R>
FIRTH_INLINE void weights_of(const Attention& task, const Dropout& dropout, const Query* queries, std::int64_t begin,
                             std::int64_t end, bool partial, float* scores, std::int64_t stride, const Gathered& rows,
                             std::int64_t first, float* before) {
    alignas(64) float change[kWidth < 8 ? 8 : kWidth] = {};
    float most[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        const float* const s = scores + r * stride;
        Vec greatest = splat(-kInfinity);  // and never NaN
        for (std::int64_t j = 0; j < end - begin; j += kWidth) greatest = max(load(s + j), greatest);
        const float found = lanes_max(greatest), earlier = rows.most[first + r];
        most[r] = found > earlier ? found : earlier;
        rows.most[first + r] = most[r];
        if (most[r] == -kInfinity) most[r] = 0;  // no key seen so far: every weight is 0
        change[r] = earlier - most[r];
    }
    for (int r = 0; r < R; r += kWidth) {
        const Vec was = load(change + r);
        store(before + r, select(was == -kInfinity, Vec{}, exp2_of(was)));
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        float* const s = scores + r * stride;
        Vec sum{};
        if (partial) {
            for (std::int64_t j = 0; j < end - begin; j += kWidth) {
                const Vec x = load(s + j);
                const Vec weight = select(x == -kInfinity, Vec{}, exp2_of(x - most[r]));
                sum += weight;
                store(s + j, weight);
            }
        } else {
            for (std::int64_t j = 0; j < end - begin; j += kWidth) {
                const Vec weight = exp2_of(load(s + j) - most[r]);
                sum += weight;
                store(s + j, weight);
            }
        }
        float* const sums = rows.sums + (first + r) * kWidth;
        store(sums, load(sums) * before[r] + sum);
        if (task.dropout > 0) {
            const std::uint32_t key = dropout.row_key(task, queries[r]);
            for (std::int64_t j = 0; j < end - begin; j += kWidth) {
                const Vec kept = dropout.at(key, begin + j);
                // A dropped weight is zero even if it was NaN: its value is not added.
                store(s + j, select(kept == 0.0f, Vec{}, load(s + j) * kept));
            }
        }
    }
}

// Values of a chunk: as lanes for products and, on request, as floats.
template <class Number>
struct Values {
    const Attention& task;
    std::int64_t batch, key_head, begin, n;
    float* room;
    RowsOf<Number> lanes;
    Rows wide = {nullptr, 0};
    std::int32_t infinite[kChunk + 1] = {};  // of the first i rows, how many are not finite

    // Whether the rows [first, last) are finite. Other rows must not matter: which rows a chunk has depends on how
    // queries are cut into blocks, which depends on the number of threads.
    bool all_finite(std::int64_t first, std::int64_t last) {
        if (wide.data == nullptr) {
            wide = rows_of(task, task.v, batch, key_head, begin, n, task.value_width, true, room);
            for (std::int64_t i = 0; i < n; ++i) {
                const bool finite = FIRTH_ISA::all_finite({wide[i], 0}, 1, task.value_width);
                infinite[i + 1] = infinite[i] + (finite ? 0 : 1);
            }
        }
        return infinite[first] == infinite[last < n ? last : n];
    }
};

// Adds the keys [begin, end) to the sums of R rows. `scores` are their scores; their values begin at row `skip` of
// `values`.
template <class Arithmetic, int R, bool Streamed = false, class Number>
FIRTH_INLINE void gather(const Attention& task, const Dropout& dropout, const Query* queries, std::int64_t begin,
                         std::int64_t end, float* scores, std::int64_t stride, const Gathered& rows, std::int64_t first,
                         Values<Number>& values, std::int64_t skip) {
    bool partial = false;
    const std::int64_t whole = begin + (end - begin + kWidth - 1) / kWidth * kWidth;
    for (int r = 0; r < R; ++r) partial |= settle(task, queries[r], begin, whole, scores + r * stride);
    alignas(64) float before[kWidth < 8 ? 8 : kWidth];
    weights_of<R>(task, dropout, queries, begin, whole, partial, scores, stride, rows, first, before);
    float* const to = rows.values + first * rows.stride;
    const int vectors = static_cast<int>(rows.stride / kWidth);
    const std::int64_t n = (end - begin + Arithmetic::kNumbers - 1) / Arithmetic::kNumbers;  // lanes
    if ((partial || task.dropout > 0) && !values.all_finite(skip, skip + n * Arithmetic::kNumbers)) {
        const Rows from{values.wide[skip], values.wide.stride};
        weigh_pairs(R, scores, stride, 1, from, end - begin, before, 1, to, rows.stride, vectors);
        return;
    }
    const RowsOf<Number> from{values.lanes[skip / Arithmetic::kNumbers], values.lanes.stride};
#if defined(FIRTH_HALVES)
    if constexpr (Arithmetic::kNumbers == 2) {
        // Weights in bf16 in the first half of their memory: nothing reads them as floats any more.
        for (int r = 0; r < R; ++r) {
            float* const s = scores + r * stride;
            for (std::int64_t j = 0; j < whole - begin; j += kWidth) {
                store_bf16(reinterpret_cast<std::uint16_t*>(s) + j, load(s + j));
            }
        }
    }
#endif
    weigh<Arithmetic, R, Streamed>(scores, stride, 1, from, n, before, 1, to, rows.stride, vectors);
}

// Scratch for attention_forward and attention_few.
struct ForwardRoom {
    float *packed, *keys, *values, *pairs, *queries, *scores;
    Gathered rows;

    ForwardRoom(Arena& arena, const Attention& task, std::int64_t n_rows) {
        const std::int64_t key = padded(task.width), value = padded(task.value_width);
        packed = arena.take<float>(kChunk * static_cast<std::int64_t>(task.width));
        keys = arena.take<float>(kChunk * key);
        values = arena.take<float>(kChunk * value);
        pairs = arena.take<float>(kChunk / 2 * value);
        queries = arena.take<float>(n_rows * key);
        scores = arena.take<float>(kRows * kChunk);
        rows.values = arena.take<float>(n_rows * value);
        rows.stride = value;
        rows.sums = arena.take<float>(n_rows * kWidth);
        rows.most = arena.take<float>(n_rows);
    }
};

std::int64_t few_rows(const Attention& task) { return task.n_heads / task.n_key_heads * task.n_queries; }

// Walks over the keys that the queries [begin, end) see, chunk by chunk, and calls meet(R, queries, low, high, first,
// values, skip) for up to kRows of them with the keys [low, high): their scores stand in room.scores, the first of the
// queries is number `first`, and the first of the keys number `skip` of `values`.
template <class Arithmetic, class Meet>
FIRTH_INLINE void walk(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                       std::int64_t end, const ForwardRoom& room, bool with_values, Meet&& meet) {
    const std::int64_t key_head = head / (task.n_heads / task.n_key_heads);
    const int lanes = task.width / Arithmetic::kNumbers;
    const auto rows_in_lanes = [&](const AttentionArray& array, std::int64_t h, std::int64_t from, std::int64_t n,
                                   float* copies) FIRTH_INLINE_LAMBDA {
#if defined(FIRTH_HALVES)
        if constexpr (Arithmetic::kNumbers == 2) return pairs_of(array, batch, h, from);
#endif
        return rows_of(task, array, batch, h, from, n, task.width, false, copies);
    };
    const Rows queries = rows_in_lanes(task.q, head, begin, end - begin, room.queries);
    const KeyRange all = attention_keys(task, batch, begin, end);
    // In whole lanes, so that a lane holds the same keys however queries are cut into blocks.
    const std::int64_t even = (all.end + Arithmetic::kNumbers - 1) / Arithmetic::kNumbers * Arithmetic::kNumbers;
    const std::int64_t last = even < task.n_keys ? even : task.n_keys;
    for (std::int64_t chunk = all.begin / kChunk * kChunk; chunk < all.end; chunk += kChunk) {
        const std::int64_t from = chunk > all.begin ? chunk : all.begin / kPanel * kPanel;
        const std::int64_t to = chunk + kChunk < last ? chunk + kChunk : last;
        pack(rows_in_lanes(task.k, key_head, from, to - from, room.keys), to - from, lanes, room.packed);
        Values<float> values{task, batch, key_head, from, to - from, room.values, {nullptr, 0}};
        if (with_values) {
            if constexpr (Arithmetic::kNumbers == 1) {
                values.lanes =
                    rows_of(task, task.v, batch, key_head, from, to - from, task.value_width, true, room.values);
            }
#if defined(FIRTH_HALVES)
            if constexpr (Arithmetic::kNumbers == 2) {
                values.lanes = interleaved(task.v, batch, key_head, from, to - from, task.value_width, room.pairs);
            }
#endif
        }
        for (std::int64_t i = begin; i < end; i += kRows) {
            const int some = end - i < kRows ? static_cast<int>(end - i) : kRows;
            const KeyRange seen = attention_keys(task, batch, i, i + some);
            const std::int64_t low = seen.begin > from ? from + (seen.begin - from) / kPanel * kPanel : from;
            const std::int64_t high = seen.end < to ? seen.end : to;
            if (low >= high) continue;
            const float* rows[kRows];
            Query of[kRows];
            for (int r = 0; r < some; ++r) {
                rows[r] = queries[i - begin + r];
                of[r] = {batch, head, i + r};
            }
            with_count<kRows>(some, [&](auto count) FIRTH_INLINE_LAMBDA {
                constexpr int R = decltype(count)::n;
                for (std::int64_t j = low; j < high; j += kPanel) {
                    score_panel<Arithmetic, R>(rows, room.packed + (j - from) * lanes, lanes, task.scale * kLog2e,
                                               room.scores + (j - low), kChunk);
                }
                meet(count, of, low, high, i - begin, values, low - from);
            });
        }
    }
}

template <class Arithmetic>
FIRTH_INLINE void forward(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                          std::int64_t end, const ForwardRoom& room) {
    const Dropout dropout(task);
    room.rows.clear(end - begin);
    walk<Arithmetic>(task, batch, head, begin, end, room, true,
                     [&](auto count, const Query* of, std::int64_t low, std::int64_t high, std::int64_t first,
                         Values<float>& values, std::int64_t skip) FIRTH_INLINE_LAMBDA {
                         gather<Arithmetic, decltype(count)::n>(task, dropout, of, low, high, room.scores, kChunk,
                                                                room.rows, first, values, skip);
                     });
    for (std::int64_t i = 0; i < end - begin; ++i) {
        finish(task, {batch, head, begin + i}, lanes_sum(load(room.rows.sums + i * kWidth)), room.rows.most[i],
               room.rows.values + i * room.rows.stride);
    }
}

std::int64_t attention_rows([[maybe_unused]] const Attention& task) {
#if defined(FIRTH_TILES)
    if (task.bf16) return kPair;
#endif
    return kRows;
}

void attention_forward(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                       std::int64_t end, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
#if defined(FIRTH_TILES)
    if (task.bf16) return forward_in_tiles(task, batch, head, begin, end, TileRoom(arena, task));
#endif
    const ForwardRoom room(arena, task, kAttentionQueries);
#if defined(FIRTH_HALVES)
    if (halves(task)) return forward<Halves>(task, batch, head, begin, end, room);
#endif
    forward<Wide>(task, batch, head, begin, end, room);
}

// Whether keys and values in bf16 can be read in place.
FIRTH_INLINE bool whole_halves(const Attention& task) {
    return task.bf16 && task.k.column == 1 && task.v.column == 1 && task.width % kWidth == 0 &&
           task.value_width % kWidth == 0;
}

// Number is std::uint16_t where keys and values are whole_halves: copies in floats would not fit into the first-level
// cache.
template <class Number>
FIRTH_INLINE void few(const Attention& task, std::int64_t batch, std::int64_t key_head, std::int64_t begin,
                      std::int64_t end, float* partial, const ForwardRoom& room) {
    const std::int64_t n_rows = few_rows(task), group = task.n_heads / task.n_key_heads;
    const Dropout dropout(task);
    room.rows.clear(n_rows);
    const std::int64_t width = padded(task.width);
    // Queries times the scale of the scores, since keys are read in place.
    for (std::int64_t h = 0; h < group; ++h) {
        const Rows rows = rows_of(task, task.q, batch, key_head * group + h, 0, task.n_queries, task.width, true,
                                  room.queries + h * task.n_queries * width);
        for (std::int64_t i = 0; i < task.n_queries; ++i) {
            float* const to = room.queries + (h * task.n_queries + i) * width;
            for (int d = 0; d < width; d += kWidth) store(to + d, load(rows[i] + d) * (task.scale * kLog2e));
        }
    }
    // From a multiple of kWidth on: as segments end at one too, the last vector of a segment has no key of the next.
    for (std::int64_t chunk = begin < end ? begin / kWidth * kWidth : end; chunk < end; chunk += kChunk) {
        const std::int64_t to = chunk + kChunk < end ? chunk + kChunk : end;
        const auto rows_at = [&](const AttentionArray& array, int numbers, float* copies) FIRTH_INLINE_LAMBDA {
            if constexpr (sizeof(Number) == 2) {
                const std::int64_t at = batch * array.batch + key_head * array.head + chunk * array.time;
                return HalfRows{static_cast<const std::uint16_t*>(array.data) + at, array.time};
            } else {
                return rows_of(task, array, batch, key_head, chunk, to - chunk, numbers, true, copies);
            }
        };
        const RowsOf<Number> keys = rows_at(task.k, task.width, room.keys);
        Values<Number> values{
            task, batch, key_head, chunk, to - chunk, room.values, rows_at(task.v, task.value_width, room.values)};
        for (std::int64_t first = 0; first < n_rows; first += kRows) {
            const int some = n_rows - first < kRows ? static_cast<int>(n_rows - first) : kRows;
            Query of[kRows];
            for (int r = 0; r < some; ++r) {
                const std::int64_t row = first + r;
                of[r] = {batch, key_head * group + row / task.n_queries, row % task.n_queries};
            }
            with_count<kRows>(some, [&](auto count) FIRTH_INLINE_LAMBDA {
                constexpr int R = decltype(count)::n;
                const float* const queries = room.queries + first * width;
                for (std::int64_t j = 0; j < to - chunk; j += 4) {
                    // The last key stands in for keys beyond the end; its extra scores are masked later.
                    const Number* key[4];
                    for (int c = 0; c < 4; ++c) {
                        key[c] = keys[j + c < to - chunk ? j + c : to - chunk - 1];
                        prefetch_ahead(key[c], keys.stride, task.width);
                    }
                    Vec sum[R][4] = {};
                    for (int d = 0; d < width; d += kWidth) {
                        Vec x[4];
#pragma GCC unroll 4
                        for (int c = 0; c < 4; ++c) x[c] = load_any(key[c] + d);
#pragma GCC unroll 6
                        for (int r = 0; r < R; ++r) {
                            const Vec q = load(queries + r * width + d);
#pragma GCC unroll 4
                            for (int c = 0; c < 4; ++c) sum[r][c] += q * x[c];
                        }
                    }
#pragma GCC unroll 6
                    for (int r = 0; r < R; ++r) {
                        store4(room.scores + r * kChunk + j, sum4(sum[r][0], sum[r][1], sum[r][2], sum[r][3]));
                    }
                }
                gather<Wide, R, true>(task, dropout, of, chunk, to, room.scores, kChunk, room.rows, first, values, 0);
            });
        }
    }
    const std::int64_t stride = room.rows.stride;
    for (std::int64_t row = 0; row < n_rows; ++row) {
        float* const result = partial + row * attention_partial(task);
        for (std::int64_t d = 0; d < stride; ++d) result[d] = room.rows.values[row * stride + d];
        result[stride] = lanes_sum(load(room.rows.sums + row * kWidth));
        result[stride + 1] = room.rows.most[row];
    }
}

void attention_few(const Attention& task, std::int64_t batch, std::int64_t key_head, std::int64_t begin,
                   std::int64_t end, float* partial, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    const ForwardRoom room(arena, task, few_rows(task));
    if (whole_halves(task)) return few<std::uint16_t>(task, batch, key_head, begin, end, partial, room);
    few<float>(task, batch, key_head, begin, end, partial, room);
}

void attention_merge(const Attention& task, std::int64_t batch, std::int64_t key_head, float* partials,
                     std::int64_t n) {
    const std::int64_t n_rows = few_rows(task), group = task.n_heads / task.n_key_heads;
    const std::int64_t stride = padded(task.value_width), size = attention_partial(task);
    for (std::int64_t row = 0; row < n_rows; ++row) {
        float most = -kInfinity;
        for (std::int64_t p = 0; p < n; ++p) {
            const float found = partials[(p * n_rows + row) * size + stride + 1];
            most = found > most ? found : most;
        }
        float* const values = partials + row * size;  // of the first partial result, which is read first
        float sum = 0;
        for (std::int64_t p = 0; p < n; ++p) {
            const float* const part = partials + (p * n_rows + row) * size;
            const float found = part[stride + 1];
            const float share = found == -kInfinity ? 0.0f : __builtin_exp2f(found - most);
            sum += part[stride] * share;
            for (std::int64_t d = 0; d < stride; ++d) values[d] = (p == 0 ? 0.0f : values[d]) + part[d] * share;
        }
        const Query query{batch, key_head * group + row / task.n_queries, row % task.n_queries};
        finish(task, query, sum, most, values);
    }
}

void attention_weights(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t query, float* weights,
                       void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    const ForwardRoom room(arena, task, kAttentionQueries);
    for (std::int64_t j = 0; j < task.n_keys; ++j) weights[j] = 0;
    const float lse = task.lse[(batch * task.n_heads + head) * task.n_queries + query] * kLog2e;
    walk<Wide>(task, batch, head, query, query + 1, room, false,
               [&](auto, const Query* of, std::int64_t low, std::int64_t high, std::int64_t, Values<float>&,
                   std::int64_t) FIRTH_INLINE_LAMBDA {
                   const std::int64_t whole = low + (high - low + kWidth - 1) / kWidth * kWidth;
                   settle(task, of[0], low, whole, room.scores);
                   for (std::int64_t j = low; j < whole; j += kWidth) {
                       const Vec x = load(room.scores + (j - low));
                       store(room.scores + (j - low), select(x == -kInfinity, Vec{}, exp2_of(min(Vec{}, x - lse))));
                   }
                   for (std::int64_t j = low; j < high; ++j) weights[j] = room.scores[j - low];
               });
}

void attention_entropies(const Attention& task, std::int64_t batch, std::int64_t head, std::int64_t begin,
                         std::int64_t end, float* entropies, void* scratch) {
    Arena arena{static_cast<char*>(scratch)};
    const ForwardRoom room(arena, task, kAttentionQueries);
    const std::int64_t row = (batch * task.n_heads + head) * task.n_queries;
    room.rows.clear(end - begin);
    walk<Wide>(task, batch, head, begin, end, room, false,
               [&](auto count, const Query* of, std::int64_t low, std::int64_t high, std::int64_t first, Values<float>&,
                   std::int64_t) FIRTH_INLINE_LAMBDA {
                   const std::int64_t whole = low + (high - low + kWidth - 1) / kWidth * kWidth;
                   for (int r = 0; r < decltype(count)::n; ++r) {
                       float* const s = room.scores + r * kChunk;
                       const float lse = task.lse[row + of[r].i] * kLog2e;
                       settle(task, of[r], low, whole, s);
                       Vec sum = load(room.rows.sums + (first + r) * kWidth);
                       for (std::int64_t j = 0; j < whole - low; j += kWidth) {
                           const Vec score = load(s + j);
                           // Bounded as in exp2_of: a tiny weight times a huge logarithm counts as zero.
                           const Vec x = max(splat(-126.0f), min(Vec{}, score - lse));
                           sum -= select(score == -kInfinity, Vec{}, exp2_of(x) * x);
                       }
                       store(room.rows.sums + (first + r) * kWidth, sum);
                   }
               });
    for (std::int64_t i = begin; i < end; ++i) {
        entropies[row + i] = lanes_sum(load(room.rows.sums + (i - begin) * kWidth)) * kLn2;
    }
}

}  // namespace
}  // namespace firth::FIRTH_ISA
