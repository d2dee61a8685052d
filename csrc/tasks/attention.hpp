// Scaled dot-product attention, softmax(scale q k^T + terms) v (Vaswani et al. 2017), and its gradients: the task as
// any back end takes it.
#pragma once

#include <cstdint>

namespace firth {

// An array of (batch, heads, time, width), in bf16 or float32; strides in elements.
struct AttentionArray {
    void* data;
    std::int64_t batch, head, time, column;
};

// A mask or a term that is added to the scores: (B, H, Tq, Tk); strides in elements, 0 along an axis that is broadcast.
template <class T>
struct AttentionTerm {
    T* data;  // null: there is none
    std::int64_t batch, head, query, key;
};

// B = batches, H = heads of queries, Hk = heads of keys (H is a multiple of it), Tq queries of D = width dimensions, Tk
// keys of the same width with values of Dv = value_width dimensions.
//
// Query i stands at position i + Tk - Tq among the keys. It sees key j where all of these hold:
//   j < lengths[b];  j <= position, if causal;  |position - j| <= window, if there is one;  visible[b, h, i, j] is not
//   0; and added + bias is not -infinity.
struct Attention {
    AttentionArray q;    // (B, H, Tq, D)
    AttentionArray k;    // (B, Hk, Tk, D)
    AttentionArray v;    // (B, Hk, Tk, Dv)
    AttentionArray out;  // (B, H, Tq, Dv)
    float* lse;  // (B, H, Tq) log of the sum of exp(scores) of a row, -infinity if it sees no key; null: not wanted
    bool bf16;   // type of q, k, v, out and their gradients; otherwise float32
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
    float dropout;  // probability that a weight is dropped; the others are multiplied by 1 / (1 - dropout)
    std::uint64_t seed;
};

// The gradient of `out` is given. Those of q, k and v are written. That of the bias is added to what is there, summed
// along axes of stride 0; its stride along the keys is never 0.
struct AttentionGradients {
    AttentionArray out;         // (B, H, Tq, Dv)
    AttentionArray q;           // (B, H, Tq, D)
    AttentionArray k;           // (B, Hk, Tk, D)
    AttentionArray v;           // (B, Hk, Tk, Dv)
    AttentionTerm<float> bias;  // null if it is not wanted
};

}  // namespace firth
