// Attention shared out over threads, down to blocks of one head. Results do not depend on the number of threads.
//
// Nothing is allocated here. workspace: aligned to 64 bytes, of as many bytes as the function named ..._bytes returns
// for the same task and number of threads while the same HeldIsa exists.
#pragma once

#include "tasks/attention.hpp"

namespace firth {

// Computes out and lse.
std::int64_t attend_bytes(const Attention& task, int n_threads);
void attend(const Attention& task, int n_threads, void* workspace);

// Computes gradients from q, k, v, out and lse.
std::int64_t attend_backward_bytes(const Attention& task, const AttentionGradients& gradients, int n_threads);
void attend_backward(const Attention& task, const AttentionGradients& gradients, int n_threads, void* workspace);

// Both of what follows are recomputed from q, k and lse, and take this much.
std::int64_t attention_view_bytes(const Attention& task, int n_threads);

// Weights (B, n_heads, n_rows, Tk) of some heads and some queries.
void attention_maps(const Attention& task, const std::int64_t* heads, std::int64_t n_heads, const std::int64_t* rows,
                    std::int64_t n_rows, float* weights, int n_threads, void* workspace);

// Entropies (B, H, Tq), in nats, of all rows of weights.
void attention_row_entropies(const Attention& task, float* entropies, int n_threads, void* workspace);

}  // namespace firth
