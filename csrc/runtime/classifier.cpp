#include "runtime/classifier.hpp"

#include "kernels/arena.hpp"
#include "kernels/classifier.hpp"
#include "runtime/racing.hpp"

namespace firth {
namespace {

std::int64_t training_scratch_bytes(const ClassifierTraining& task) {
    return classifier_kernels().scratch_bytes(task.model, task.negative);
}

ThreadScratch prediction_space(Arena& arena, const Classifier& model, int n_threads) {
    return {arena, classifier_kernels().scratch_bytes(model, 0), n_threads};
}

}  // namespace

std::int64_t train_classifier_bytes(const ClassifierTraining& task, int n_threads) {
    return racing_bytes<ClassifierTally>(training_scratch_bytes(task), n_threads);
}

ClassifierTally train_classifier(const ClassifierTraining& task, std::int64_t begin, std::int64_t end, int n_threads,
                                 void* workspace) {
    const ClassifierKernels& kernels = classifier_kernels();
    return train_racing<ClassifierTally>(
        training_scratch_bytes(task), n_threads, workspace,
        [&](int thread, ClassifierTally* tally, void* scratch) {
            const auto cut = [&](int t) { return begin + (end - begin) * t / n_threads; };
            kernels.range(task, cut(thread), cut(thread + 1), tally, scratch);
        },
        [](const ClassifierTally& tally, ClassifierTally& all) {
            all.loss += tally.loss;
            all.examples += tally.examples;
            if (all.diverged_at < 0) all.diverged_at = tally.diverged_at;
        });
}

std::int64_t predict_classifier_bytes(const Classifier& model, int n_threads) {
    Arena arena{nullptr};
    prediction_space(arena, model, n_threads);
    return arena.used;
}

void predict_classifier(const Classifier& model, std::int64_t n_examples, float* probabilities, int n_threads,
                        void* workspace) {
    Arena arena{static_cast<char*>(workspace)};
    const ThreadScratch scratch = prediction_space(arena, model, n_threads);
    const ClassifierKernels& kernels = classifier_kernels();
    parallel_shares(n_examples, n_threads, [&](long long begin, long long end, int thread) {
        const std::int64_t step = (std::int64_t{1} << 26) / (std::int64_t{model.n_labels} * model.vector_size) + 1;
        in_steps(begin, end, step, [&](long long from, long long to) {
            kernels.predict(model, from, to, probabilities + from * model.n_labels, scratch.of(thread));
        });
    });
}

}  // namespace firth
