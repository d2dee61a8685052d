// Scaled dot-product attention, softmax(scale q k^T + terms) v, without ever storing a square matrix (Dao 2023), and
// its gradients.
#pragma once

#include <cstdint>

namespace firth {

// An array of (batch, heads, time, width), in bf16 or float32; strides in elements.
struct AttentionArray {
    void* data;
    std::int64_t batch, head, time, column;
};

// What is added to scores, or hides them: (B, H, Tq, Tk); strides in elements, 0 along an axis that is broadcast.
template <class T>
struct AttentionTerm {
    T* data;  // null: there is none
    std::int64_t batch, head, query, key;
};

// B = batches, H = heads of queries, Hk = heads of keys (H is a multiple of it), Tq queries of D = width numbers, Tk
// keys of the same width with values of Dv = value_width numbers.
//
// Query i stands at position i + Tk - Tq among the keys. It sees key j where all of these hold:
//   j < lengths[b];  j <= position, if causal;  |position - j| <= window, if there is one;  visible[b, h, i, j] is not
//   0; and added + bias is not -infinity.
struct Attention {
    AttentionArray q;    // (B, H, Tq, D)
    AttentionArray k;    // (B, Hk, Tk, D)
    AttentionArray v;    // (B, Hk, Tk, Dv)
    AttentionArray out;  // (B, H, Tq, Dv)
    float* lse;          // (B, H, Tq) log of the sum of the exponentials of a row's scores; -infinity if it sees no key
    bool bf16;           // what q, k, v, out and gradients of theirs are made of; otherwise float32
    std::int64_t n_batches, n_heads, n_key_heads, n_queries, n_keys;
    int width, value_width;
    bool causal;
    std::int64_t window;          // -1: none
    const std::int64_t* lengths;  // (B), or null
    AttentionTerm<const unsigned char> visible;
    AttentionTerm<const float> added;
    AttentionTerm<const float> bias;
    const float* slopes;  // (H) of ALiBi: -slopes[h] |position - j| is added; or null
    float scale;
    float dropout;  // the part of the weights that is dropped; the others are multiplied by 1 / (1 - dropout)
    std::uint64_t seed;
};

struct AttentionGradients {
    AttentionArray out;         // (B, H, Tq, Dv) given
    const float* delta;         // (B, H, Tq) out . gradient of out, see attention_deltas
    float* q;                   // (B, H, Tq, q_stride): sums, which begin at zero; see attention_end_query
    std::int64_t q_stride;      // a multiple of 32, or of 16 for float32
    AttentionArray k;           // (B, Hk, Tk, D)
    AttentionArray v;           // (B, Hk, Tk, Dv)
    AttentionTerm<float> bias;  // sums, which begin at zero, over all axes but that of keys; or null
    void* packed;               // for all blocks of kAttentionBlock queries: written by attention_deltas
};

// Rows of queries that are worked on together, at the most: in attention_forward, and in the backward pass along with
// as many keys.
constexpr int kAttentionQueries = 192;
constexpr int kAttentionBlock = 64;
// Of a part of the keys, for queries that several parts are worked on for side by side.
constexpr std::int64_t kAttentionSegment = 4096;

// Keys that one of the queries [begin, end) sees, at the most.
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

// Floats of a partial result of attention_few.
static inline std::int64_t attention_partial(const Attention& task) { return (task.value_width + 15) / 16 * 16 + 16; }

}  // namespace firth
