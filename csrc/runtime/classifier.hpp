// Training and prediction, shared out over threads.
#pragma once

#include "kernels/classifier.hpp"

namespace firth {

ClassifierTally train_classifier(const ClassifierTraining& task, std::int64_t begin, std::int64_t end, int n_threads);

// probabilities: (n_examples, n_labels)
void predict_classifier(const Classifier& model, std::int64_t n_examples, float* probabilities, int n_threads);

}  // namespace firth
