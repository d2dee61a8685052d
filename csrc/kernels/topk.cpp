// Queries lie transposed, a vector's lanes being different queries, and a register block is several rows by several
// such vectors: a row's number is broadcast, there is no sum across lanes, and a score is compared with the worst that
// its query still keeps where it was computed. Scores are never stored; insertions are rare, about k ln(N / k) a query.
//
// One query alone fills one lane of a vector and is still as fast as memory delivers the rows: the block multiplies
// two floats of the matrix a cycle.

#include "kernels/topk.hpp"

#include "kernels/count.hpp"

namespace firth::FIRTH_ISA {
namespace {

// At most so many query vectors in a register block, and the rows that go with them.
constexpr int kVectors = kRegisters == 32 ? 4 : 2;
constexpr int rows_at_once(int vectors) {
    if (kRegisters == 32) return vectors <= 2 ? 12 : vectors == 3 ? 8 : 6;
    return vectors == 1 ? 8 : 6;
}
// Rows are taken in tiles of about this many floats, which stay in cache while all queries pass over them.
constexpr std::int64_t kTileFloats = 32768;
constexpr std::int64_t kLine = 16;      // floats in a cache line
constexpr std::int64_t kTileStep = 24;  // every rows_at_once divides it

// Bit i is set where lane i of a exceeds lane i of b; not where either is NaN.
FIRTH_INLINE unsigned greater(Vec a, Vec b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_GT_OQ);
#elif defined(__AVX2__)
    return static_cast<unsigned>(
        _mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_GT_OQ)));
#elif defined(__x86_64__)
    return static_cast<unsigned>(
        _mm_movemask_ps(_mm_cmpgt_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b))));
#elif defined(__aarch64__)
    return vaddvq_u32(reinterpret_cast<uint32x4_t>((a > b) & VecInt{1, 2, 4, 8}));
#else
    const VecInt mask = a > b;
    unsigned bits = 0;
    for (int lane = 0; lane < kWidth; ++lane) bits |= static_cast<unsigned>(mask[lane] & 1) << lane;
    return bits;
#endif
}

FIRTH_INLINE bool worse(const Candidate& a, const Candidate& b) {
    return a.score < b.score || (a.score == b.score && a.row > b.row);
}

// Puts `candidate` in the place of the worst of k, which the heap has at its top.
void replace_worst(Candidate* heap, std::int64_t k, Candidate candidate) {
    std::int64_t hole = 0;
    for (std::int64_t child = 1; child < k; child = 2 * hole + 1) {
        if (child + 1 < k && worse(heap[child + 1], heap[child])) ++child;
        if (!worse(heap[child], candidate)) break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = candidate;
}

// Inserts the lanes of `scores` that `lanes` marks; thresholds and heaps are those of the vector's first query.
__attribute__((noinline)) void insert(const float* scores, unsigned lanes, std::int64_t row, std::int64_t k,
                                      float* thresholds, Candidate* heaps) {
    for (; lanes != 0; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        Candidate* const heap = heaps + lane * k;
        replace_worst(heap, k, {scores[lane], static_cast<std::int32_t>(row)});
        thresholds[lane] = heap[0].score;
    }
}

// queries: (Vectors, D, kWidth); thresholds: (Vectors * kWidth).
template <int Vectors>
void scan(const TopK& task, const float* queries, std::int64_t begin, std::int64_t end, float* thresholds,
          Candidate* heaps) {
    constexpr int kRows = rows_at_once(Vectors);
    const std::int64_t step = task.vector_size * kWidth;
    const std::int64_t ahead = kRows * task.stride;
    for (std::int64_t first = begin; first < end; first += kRows) {
        const float* rows[kRows];  // past the end: the last row again, and not looked at
        for (int r = 0; r < kRows; ++r) rows[r] = task.matrix + (first + r < end ? first + r : end - 1) * task.stride;

        Vec sum[kRows][Vectors] = {};
        for (std::int64_t line = 0; line < task.vector_size; line += kLine) {
            // The processor's own prefetching does not follow so many short streams: without this, a single query
            // runs at half the speed.
#pragma GCC unroll 12
            for (int r = 0; r < kRows; ++r) __builtin_prefetch(rows[r] + ahead + line);
            const std::int64_t stop = line + kLine < task.vector_size ? line + kLine : task.vector_size;
            for (std::int64_t d = line; d < stop; ++d) {
                Vec query[Vectors];
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v) query[v] = load(queries + v * step + d * kWidth);
#pragma GCC unroll 12
                for (int r = 0; r < kRows; ++r) {
                    const float x = rows[r][d];
#pragma GCC unroll 4
                    for (int v = 0; v < Vectors; ++v) sum[r][v] += x * query[v];
                }
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) {
            if (first + r >= end) break;
            const float inverse_norm = task.inverse_norms[first + r];
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                const Vec score = sum[r][v] * inverse_norm;
                const unsigned lanes = greater(score, load(thresholds + v * kWidth));
                if (__builtin_expect(lanes != 0, 0)) {
                    float scores[kWidth];
                    store(scores, score);
                    insert(scores, lanes, first + r, task.k, thresholds + v * kWidth, heaps + v * kWidth * task.k);
                }
            }
        }
    }
}

void topk_begin(const TopK& task, Candidate* heaps, float* scratch) {
    const std::int64_t dim = task.vector_size;
    const std::int64_t vectors = (task.n_queries + kWidth - 1) / kWidth;
    float* const packed = scratch;                               // (vectors, D, kWidth)
    float* const thresholds = scratch + vectors * kWidth * dim;  // (vectors * kWidth)
    for (std::int64_t q = 0; q < vectors * kWidth; ++q) {
        const bool real = q < task.n_queries;
        float* const lane = packed + q / kWidth * kWidth * dim + q % kWidth;
        for (std::int64_t d = 0; d < dim; ++d) lane[d * kWidth] = real ? task.queries[q * dim + d] : 0.0f;
        thresholds[q] = real ? -__builtin_inff() : __builtin_inff();
    }
    for (std::int64_t i = 0; i < task.n_queries * task.k; ++i) heaps[i] = {-__builtin_inff(), kNoCandidate};
}

void topk_range(const TopK& task, std::int64_t begin, std::int64_t end, Candidate* heaps, float* scratch) {
    const std::int64_t dim = task.vector_size;
    const std::int64_t vectors = (task.n_queries + kWidth - 1) / kWidth;
    const float* const packed = scratch;
    float* const thresholds = scratch + vectors * kWidth * dim;
    const std::int64_t tile = (kTileFloats / (dim * kTileStep) + 1) * kTileStep;
    for (std::int64_t from = begin; from < end; from += tile) {
        const std::int64_t to = from + tile < end ? from + tile : end;
        for (std::int64_t v = 0; v < vectors; v += kVectors) {
            const float* const queries = packed + v * kWidth * dim;
            float* const bounds = thresholds + v * kWidth;
            Candidate* const best = heaps + v * kWidth * task.k;
            with_count<kVectors>(vectors - v,
                                 [&](auto count) { scan<count.n>(task, queries, from, to, bounds, best); });
        }
    }
}

}  // namespace

const TopKKernels topk_kernels{
    .begin = topk_begin,
    .range = topk_range,
};

}  // namespace firth::FIRTH_ISA
