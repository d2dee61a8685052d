// Training and prediction on several threads.
//
// Nothing is allocated here. workspace: aligned to 64 bytes, of as many bytes as the function named ..._bytes returns
// for the same task and number of threads while the same HeldIsa exists.
#pragma once

#include "tasks/classifier.hpp"

namespace firth {

// Trains on places [begin, end) of the epoch.
std::int64_t train_classifier_bytes(const ClassifierTraining& task, int n_threads);
ClassifierTally train_classifier(const ClassifierTraining& task, std::int64_t begin, std::int64_t end, int n_threads,
                                 void* workspace);

// probabilities: (n_examples, n_labels)
std::int64_t predict_classifier_bytes(const Classifier& model, int n_threads);
void predict_classifier(const Classifier& model, std::int64_t n_examples, float* probabilities, int n_threads,
                        void* workspace);

}  // namespace firth
