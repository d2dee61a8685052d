#include "runtime/classifier.hpp"

#include <vector>

#include "runtime/aligned.hpp"
#include "runtime/threads.hpp"

namespace firth {

ClassifierTally train_classifier(const ClassifierTraining& task, std::int64_t begin, std::int64_t end, int n_threads) {
    const ClassifierKernels& kernels = classifier_kernels();
    std::vector<ClassifierTally> tallies(static_cast<std::size_t>(n_threads));
    parallel_shares(end - begin, n_threads, [&](long long from, long long to, int thread) {
        // Allocated by the thread that uses it, so that no two threads share a cache line.
        const AlignedBytes scratch(kernels.scratch_bytes(task.model, task.negative));
        ClassifierTally tally;
        kernels.range(task, begin + from, begin + to, &tally, scratch.data);
        tallies[static_cast<std::size_t>(thread)] = tally;
    });
    ClassifierTally all;
    for (const ClassifierTally& tally : tallies) {
        all.loss += tally.loss;
        all.examples += tally.examples;
        if (all.diverged_at < 0) all.diverged_at = tally.diverged_at;
    }
    return all;
}

void predict_classifier(const Classifier& model, std::int64_t n_examples, float* probabilities, int n_threads) {
    const ClassifierKernels& kernels = classifier_kernels();
    parallel_shares(n_examples, n_threads, [&](long long begin, long long end, int) {
        const AlignedBytes scratch(kernels.scratch_bytes(model, 0));
        const std::int64_t step = (std::int64_t{1} << 26) / (std::int64_t{model.n_labels} * model.vector_size) + 1;
        in_steps(begin, end, step, [&](long long from, long long to) {
            kernels.predict(model, from, to, probabilities + from * model.n_labels, scratch.data);
        });
    });
}

}  // namespace firth
