// Every row of a text receives the gradient divided by their number, as fastText has it: the derivative of the mean.
// The gradient is evaluated at one point, even if several steps contribute to it.

#include "kernels/classifier.hpp"

#include "kernels/logistic.hpp"

namespace firth::FIRTH_ISA {
namespace {

// What one thread works in.
struct Scratch {
    float** rows;     // of an example
    float** next;     // of the one after it
    float** targets;  // at least all labels' rows, and a step's
    float* signs;     // of the targets
    float* numbers;   // (L) scores or gradients, with room for a vector more
    float* hidden;    // (stride) the mean of the rows
    float* moves;     // (stride) what an example's steps move it by

    Scratch(Arena& arena, const Classifier& model, int negative) {
        const std::int64_t labels = model.n_labels;
        std::int64_t most = labels > model.longest_path ? labels : model.longest_path;
        if (most < 1 + negative) most = 1 + negative;
        rows = arena.take<float*>(model.longest_bag);
        next = arena.take<float*>(model.longest_bag);
        targets = arena.take<float*>(most + 1);
        signs = arena.take<float>(most + kTargets + kWidth);
        numbers = arena.take<float>(round_up(static_cast<int>(most), kWidth) + kTargets + kWidth);
        hidden = arena.take<float>(model.stride);
        moves = arena.take<float>(model.stride);
        if (arena.base == nullptr) return;
        for (std::int64_t i = 0; i < most + kTargets + kWidth; ++i) signs[i] = 0;
    }
};

struct Bag {
    int n;     // rows
    int size;  // of which the mean is taken: those, and rows of zeros
};

FIRTH_INLINE Bag bag_of(const Classifier& model, std::int64_t example, float** rows) {
    Bag bag{0, 0};
    for (std::int64_t i = model.bag_begins[example]; i < model.bag_begins[example + 1]; ++i) {
        const std::int64_t row = model.bag_rows[i];
        rows[bag.n] = model.rows + row * model.stride;
        bag.n += row >= 0;
        bag.size += row != kNoRow;
    }
    return bag;
}

FIRTH_INLINE float mean_of(const Bag& bag) { return bag.size == 0 ? 0.0f : 1.0f / static_cast<float>(bag.size); }

// scores[j] = hidden . targets[j]; behind them up to kTargets + 2 numbers are written over.
FIRTH_INLINE void dot_all(float* scores, const float* hidden, float* const* targets, int n, int floats) {
    int j = 0;
    for (; j + kTargets <= n; j += kTargets) dot_row<kTargets>(scores + j, hidden, targets + j, floats);
    if (j == n) return;
    with_count<kTargets - 1>(
        n - j, [&](auto count) FIRTH_INLINE_LAMBDA { dot_row<count.n>(scores + j, hidden, targets + j, floats); });
}

// Fills up the last vector of n scores with the first one, which changes no maximum. False if one is not finite.
FIRTH_INLINE bool complete(float* scores, int n) {
    const int padded = round_up(n, kWidth);
    for (int j = n; j < padded; ++j) scores[j] = scores[0];
    Vec finite{};
    for (int j = 0; j < padded; j += kWidth) finite += load(scores + j) * 0.0f;
    return !any_nan(finite);
}

// Scores to e^(score - greatest), and their sum, which is at least 1. Beyond e^-87 nothing would be left of them.
struct Exponentials {
    float greatest;
    float sum;
};

FIRTH_INLINE Exponentials exponentials(float* scores, int n) {
    Vec most = load(scores);
    for (int j = kWidth; j < n; j += kWidth) most = max(most, load(scores + j));
    Exponentials found{most[0], 0};
    for (int lane = 1; lane < kWidth; ++lane) {
        if (most[lane] > found.greatest) found.greatest = most[lane];
    }
    double sum = 0;
    for (int j = 0; j < n; j += kWidth) {
        const Vec e = exp_bounded(clamp(load(scores + j) - found.greatest, -87.0f, 0.0f));
        store(scores + j, e);
        const int lanes = n - j < kWidth ? n - j : kWidth;
        for (int lane = 0; lane < lanes; ++lane) sum += static_cast<double>(e[lane]);
    }
    found.sum = static_cast<float>(sum);
    return found;
}

FIRTH_INLINE void apply_some(const float* g, float* const* hidden, float* const* targets, int n, int floats,
                             float* moves) {
    const Rows none{nullptr, 0};
    with_count<kTargets>(n, [&](auto count) FIRTH_INLINE_LAMBDA {
        apply<count.n, true>(g, 1, hidden, 1, targets, floats, none, &moves);
    });
}

// Calls move(first, n) for at most kTargets targets until all have been moved. False if a call returned false.
template <class Move>
FIRTH_INLINE bool in_steps(int n_targets, Move&& move) {
    for (int first = 0; first < n_targets; first += kTargets) {
        if (!move(first, n_targets - first < kTargets ? n_targets - first : kTargets)) return false;
    }
    return true;
}

struct Example {
    const std::int32_t* labels;  // one, but with OneVersusAll
    int n_labels;
    std::int64_t position;  // in all epochs' order: no other example has it
};

// Losses. train() moves the targets, and adds the gradient of `hidden` to `moves`; false, with nothing written, if a
// dot product is not finite.

// -log of the softmax of the label.
struct Softmax {
    static constexpr bool kOneLabel = true;
    const ClassifierTraining& task;

    Softmax(const ClassifierTraining& given, Scratch& scratch) : task(given) {
        for (std::int32_t label = 0; label < task.model.n_labels; ++label) {
            scratch.targets[label] = task.model.outputs + static_cast<std::int64_t>(label) * task.model.stride;
        }
    }

    bool train(const Example& example, float rate, Scratch& scratch, StepScratch&, double* loss) const {
        const int n = task.model.n_labels, floats = round_up(task.model.vector_size, kWidth);
        float* const numbers = scratch.numbers;
        dot_all(numbers, scratch.hidden, scratch.targets, n, floats);
        if (!complete(numbers, n)) return false;
        const std::int32_t label = example.labels[0];
        const float score = numbers[label];
        const Exponentials all = exponentials(numbers, n);
        *loss += __builtin_log(static_cast<double>(all.sum)) - static_cast<double>(score - all.greatest);
        const float scale = -rate / all.sum;
        for (int j = 0; j < n; j += kWidth) store(numbers + j, load(numbers + j) * scale);
        numbers[label] += rate;
        return in_steps(n, [&](int first, int some) {
            apply_some(numbers + first, &scratch.hidden, scratch.targets + first, some, floats, scratch.moves);
            return true;
        });
    }
};

struct NegativeSampling {
    const ClassifierTraining& task;
    std::uint64_t key;

    int choose(std::int32_t label, std::uint64_t draw, float** targets, float* signs) const {
        const auto row_of = [&](std::int64_t other) { return task.model.outputs + other * task.model.stride; };
        const auto drawn = [&](std::uint64_t number) FIRTH_INLINE_LAMBDA -> Drawn {
            const std::int32_t other = draw_noise(task.noise, task.model.n_labels, key, number);
            return {other, row_of(other)};
        };
        const int n = negative_targets(label, row_of(label), task.negative, draw, drawn, targets);
        for (int i = 0; i < n; ++i) signs[i] = i == 0 ? 1 : -1;
        return n;
    }
};

struct HierarchicalSoftmax {
    const ClassifierTraining& task;
    std::uint64_t key;

    int choose(std::int32_t label, std::uint64_t, float** targets, float* signs) const {
        const auto row_of = [&](std::int64_t node) { return task.model.outputs + node * task.model.stride; };
        return path_targets(task.model, label, row_of, targets, signs);
    }
};

// Targets that an objective gives for one of the labels.
template <class Objective>
struct Chosen {
    static constexpr bool kOneLabel = true;
    const ClassifierTraining& task;
    Objective objective;

    Chosen(const ClassifierTraining& given, Scratch&) : task(given), objective{given, random_key(given.seed, 4)} {}

    bool train(const Example& example, float rate, Scratch& scratch, StepScratch& pairs, double*) const {
        const int floats = round_up(task.model.vector_size, kWidth);
        const auto draw = static_cast<std::uint64_t>(example.position);
        const int n = objective.choose(example.labels[0], draw, scratch.targets, scratch.signs);
        return in_steps(n, [&](int first, int some) {
            return step(&scratch.hidden, 1, scratch.targets + first, some, scratch.signs + first, rate, floats,
                        Rows{nullptr, 0}, pairs, &scratch.moves);
        });
    }
};

// A logistic loss for each label, alone.
struct OneVersusAll {
    static constexpr bool kOneLabel = false;
    const ClassifierTraining& task;

    OneVersusAll(const ClassifierTraining& given, Scratch& scratch) : task(given) {
        for (std::int32_t label = 0; label < task.model.n_labels; ++label) {
            scratch.targets[label] = task.model.outputs + static_cast<std::int64_t>(label) * task.model.stride;
            scratch.signs[label] = -1;
        }
    }

    bool train(const Example& example, float rate, Scratch& scratch, StepScratch& pairs, double*) const {
        const int floats = round_up(task.model.vector_size, kWidth);
        for (int i = 0; i < example.n_labels; ++i) scratch.signs[example.labels[i]] = 1;
        const bool finite = in_steps(task.model.n_labels, [&](int first, int some) {
            return step(&scratch.hidden, 1, scratch.targets + first, some, scratch.signs + first, rate, floats,
                        Rows{nullptr, 0}, pairs, &scratch.moves);
        });
        for (int i = 0; i < example.n_labels; ++i) scratch.signs[example.labels[i]] = -1;
        return finite;
    }
};

// Of the example, times that of its label or the mean of its labels'.
float weight_of(const ClassifierTraining& task, std::int64_t at, const Example& example) {
    float weight = task.weights == nullptr ? 1.0f : task.weights[at];
    if (task.label_weights == nullptr) return weight;
    float sum = 0;
    for (int i = 0; i < example.n_labels; ++i) sum += task.label_weights[example.labels[i]];
    weight *= sum / static_cast<float>(example.n_labels);
    return weight < 1e9f ? weight : 1e9f;  // steps are counted in an int
}

// Adds the loss of a cell of the epoch to the tally, rounded to a multiple of 2^-30: such sums are exact (up to 2^23),
// so cuts at the ends of cells do not change them.
void close_cell(double* cell, StepScratch& pairs, ClassifierTally* tally) {
    *cell += take(pairs.loss) - 0.693147180559945309 * static_cast<double>(pairs.padding);
    tally->loss += __builtin_nearbyint(*cell * 0x1p30) * 0x1p-30;
    *cell = 0;
    pairs.padding = 0;
}

template <class Loss>
void train_range(const ClassifierTraining& task, std::int64_t begin, std::int64_t end, ClassifierTally* tally,
                 Arena arena) {
    const Classifier& model = task.model;
    const int floats = round_up(model.vector_size, kWidth);
    alignas(64) float dots[kTargets + 2 * kWidth];
    StepScratch pairs{dots, {splat(1), splat_int(0)}, 0};
    Scratch scratch(arena, model, task.negative);
    const Loss loss(task, scratch);
    const auto n = static_cast<std::uint64_t>(task.n_examples);
    const std::uint64_t lots = random_key(task.seed, 3);
    const std::uint64_t order = random_key(task.seed, 16 + static_cast<std::uint64_t>(task.epoch));
    const std::int64_t before = static_cast<std::int64_t>(task.epoch) * task.n_examples;
    const double all = static_cast<double>(task.epochs) * static_cast<double>(task.n_examples);
    const auto example_at = [&](std::int64_t place) {
        return static_cast<std::int64_t>(permuted_at(order, static_cast<std::uint64_t>(place), n));
    };
    if (begin == end) return;
    // While one example is trained on, the rows of the next one are prefetched, and the row list of the one after.
    std::int64_t next = example_at(begin), second = begin + 1 < end ? example_at(begin + 1) : next;
    Bag coming = bag_of(model, next, scratch.next);
    double cell = 0;
    for (std::int64_t place = begin; place < end; ++place) {
        if (place % kCell == 0) close_cell(&cell, pairs, tally);  // often: the exponents of pairs.loss are 32-bit
        const std::int64_t at = next;
        const Bag bag = coming;
        float** const rows = scratch.next;
        scratch.next = scratch.rows;
        scratch.rows = rows;
        next = second;
        coming = bag_of(model, next, scratch.next);
        for (int r = 0; r < coming.n; ++r) {
            for (int d = 0; d < floats; d += kLine) __builtin_prefetch(scratch.next[r] + d, 1, 2);
        }
        second = place + 2 < end ? example_at(place + 2) : next;
        __builtin_prefetch(model.bag_begins + second);
        __builtin_prefetch(task.label_begins + second);
        Example example;
        example.labels = task.labels + task.label_begins[at];
        example.n_labels = static_cast<int>(task.label_begins[at + 1] - task.label_begins[at]);
        example.position = before + place;
        if (bag.n == 0 || example.n_labels == 0) continue;
        if (Loss::kOneLabel && example.n_labels > 1) {
            // Of several labels one is drawn, as in fastText.
            const std::uint64_t bits = random_at(lots, static_cast<std::uint64_t>(example.position));
            example.labels += random_below(bits, static_cast<std::uint32_t>(example.n_labels));
            example.n_labels = 1;
        }
        const float weight = weight_of(task, at, example);
        // A weight of 10 is ten steps, not a step ten times as long: that would overshoot, and diverge.
        const int steps = weight > 1 ? static_cast<int>(__builtin_ceilf(weight)) : 1;
        const double rate = task.learning_rate * (1 - static_cast<double>(example.position) / all);
        const auto step_rate = static_cast<float>(rate * static_cast<double>(weight) / steps);
        const float mean = mean_of(bag);
        for (int i = 0; i < steps; ++i) {
            gather(scratch.rows, bag.n, mean, floats, scratch.hidden);
            clear(scratch.moves, floats);
            if (i == 0) __builtin_prefetch(model.bag_rows + model.bag_begins[second]);
            double unused = 0;
            const StepScratch kept = pairs;
            if (!loss.train(example, step_rate, scratch, pairs, i == 0 ? &cell : &unused)) {
                tally->diverged_at = at;
                return;
            }
            if (i > 0) pairs = kept;  // the loss is that before the first step
            scatter(scratch.rows, bag.n, mean, floats, scratch.moves);
        }
        ++tally->examples;
    }
    close_cell(&cell, pairs, tally);
}

// Where rows lie in the tree is known from the leaves alone, so each label's path is walked on its own.
void tree_probabilities(const Classifier& model, const float* sigmoids, float* out) {
    for (std::int32_t label = 0; label < model.n_labels; ++label) {
        float product = 1;
        for (std::int64_t i = model.path_begins[label]; i < model.path_begins[label + 1]; ++i) {
            const float up = sigmoids[model.path_nodes[i]];
            product *= model.path_turns[i] > 0 ? up : 1 - up;
        }
        out[label] = product;
    }
}

std::int64_t classifier_scratch_bytes(const Classifier& model, int negative) {
    Arena arena{nullptr};
    Scratch(arena, model, negative);
    return arena.used;
}

void classifier_range(const ClassifierTraining& task, std::int64_t begin, std::int64_t end, ClassifierTally* tally,
                      void* scratch) {
    const Arena arena{static_cast<char*>(scratch)};
    switch (task.model.loss) {
        case ClassifierLoss::softmax:
            return train_range<Softmax>(task, begin, end, tally, arena);
        case ClassifierLoss::negative_sampling:
            return train_range<Chosen<NegativeSampling>>(task, begin, end, tally, arena);
        case ClassifierLoss::hierarchical_softmax:
            return train_range<Chosen<HierarchicalSoftmax>>(task, begin, end, tally, arena);
        case ClassifierLoss::one_vs_all:
            return train_range<OneVersusAll>(task, begin, end, tally, arena);
    }
}

void classifier_predict(const Classifier& model, std::int64_t begin, std::int64_t end, float* probabilities,
                        void* memory) {
    Arena arena{static_cast<char*>(memory)};
    Scratch scratch(arena, model, 0);
    const int floats = round_up(model.vector_size, kWidth);
    const bool tree = model.loss == ClassifierLoss::hierarchical_softmax;
    const int n = tree ? model.n_labels - 1 : model.n_labels;
    for (int j = 0; j < n; ++j) scratch.targets[j] = model.outputs + static_cast<std::int64_t>(j) * model.stride;
    float* const numbers = scratch.numbers;
    for (std::int64_t at = begin; at < end; ++at, probabilities += model.n_labels) {
        const Bag bag = bag_of(model, at, scratch.rows);
        gather(scratch.rows, bag.n, mean_of(bag), floats, scratch.hidden);
        dot_all(numbers, scratch.hidden, scratch.targets, n, floats);
        if (n > 0) complete(numbers, n);
        if (model.loss == ClassifierLoss::softmax) {
            const float scale = 1 / exponentials(numbers, n).sum;
            for (int j = 0; j < n; ++j) probabilities[j] = numbers[j] * scale;
            continue;
        }
        for (int j = 0; j < n; j += kWidth) {
            store(numbers + j, 1.0f / (1.0f + exp_bounded(clamp(-load(numbers + j), -87.0f, 87.0f))));
        }
        if (tree) {
            tree_probabilities(model, numbers, probabilities);
        } else {
            for (int j = 0; j < n; ++j) probabilities[j] = numbers[j];
        }
    }
}

}  // namespace

const ClassifierKernels classifier_kernels{
    .scratch_bytes = classifier_scratch_bytes,
    .range = classifier_range,
    .predict = classifier_predict,
};

}  // namespace firth::FIRTH_ISA
