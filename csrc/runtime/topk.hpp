// The search for the nearest rows on several threads.
#pragma once

#include "tasks/topk.hpp"

namespace firth {

// out: (rows) 1 / |row|: 0 for a row whose length is 0 (or whose inverse no float holds), NaN for one whose length is
// no float.
void inverse_norms(const float* matrix, std::int64_t rows, std::int64_t columns, std::int64_t stride, int n_threads,
                   float* out);

// The k best of all n_rows rows for every query, the best first; of rows with equal scores the lower one comes first.
// task.queries: (Q, D) of any length, unlike the kernel's. rows, scores: (Q, k); -1 and NaN where there is no row.
// workspace: aligned to 64 bytes, of as many bytes as topk_bytes returns for the same arguments.
std::int64_t topk_bytes(const TopK& task, std::int64_t n_rows, int n_threads);
void topk(const TopK& task, std::int64_t n_rows, int n_threads, std::int64_t* rows, float* scores, void* workspace);

}  // namespace firth
