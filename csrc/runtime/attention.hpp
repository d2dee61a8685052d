// Attention shared out over threads, down to blocks of one head. The result does not hang on their number.
#pragma once

#include "kernels/attention.hpp"

namespace firth {

// out and lse.
void attend(const Attention& task, int n_threads);

// Gradients of q, k and v, in bf16 or float32 as the task's arrays are, and of the bias if there is one: sums, which
// the caller sets to zero, over the axes along which it is broadcast. Needs out and lse.
void attend_backward(const Attention& task, const AttentionArray& out_gradient, const AttentionArray& q_gradient,
                     const AttentionArray& k_gradient, const AttentionArray& v_gradient,
                     const AttentionTerm<float>& bias_gradient, int n_threads);

// Weights (B, n_heads, n_rows, Tk) of some heads and some queries, recomputed from lse.
void attention_maps(const Attention& task, const std::int64_t* heads, std::int64_t n_heads, const std::int64_t* rows,
                    std::int64_t n_rows, float* weights, int n_threads);

// Entropies (B, H, Tq) of all rows of weights, in nats, recomputed from lse.
void attention_row_entropies(const Attention& task, float* entropies, int n_threads);

}  // namespace firth
