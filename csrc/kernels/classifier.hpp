// The kernels of tasks/classifier.hpp.
#pragma once

#include "runtime/dispatch.hpp"
#include "tasks/classifier.hpp"

namespace firth {

struct ClassifierKernels {
    // Bytes of scratch, aligned to 64, that one thread needs for either of the next two.
    std::int64_t (*scratch_bytes)(const Classifier& model, int negative);

    // Trains on places [begin, end) of the epoch, which has the examples in a random order of its own. With one thread
    // neither the result nor the loss depends on how the epoch is cut, if it is cut at multiples of 1024. rows and
    // outputs are shared with other threads without locks, on purpose (Hogwild: Recht et al. 2011).
    void (*range)(const ClassifierTraining& task, std::int64_t begin, std::int64_t end, ClassifierTally* tally,
                  void* scratch);

    // probabilities: (end - begin, L) of the labels of examples [begin, end): of a softmax, of the tree's leaves, or
    // each label's own. A text without rows has the vector 0.
    void (*predict)(const Classifier& model, std::int64_t begin, std::int64_t end, float* probabilities, void* scratch);
};
FIRTH_KERNEL_TABLE(ClassifierKernels, classifier_kernels)

}  // namespace firth
