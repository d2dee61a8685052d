#include "runtime/classifier.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "bindings/lists.hpp"
#include "runtime/aligned.hpp"
#include "text/bags.hpp"

namespace firth {
namespace {

using Bags = std::tuple<py::array_t<std::int64_t>, py::array_t<std::int32_t>>;
using Subwords = std::tuple<py::array_t<std::int64_t>, py::array_t<std::uint32_t>>;
using Paths = std::tuple<py::array_t<std::int64_t>, py::array_t<std::int32_t>, py::array_t<std::int8_t>>;

ClassifierLoss loss_of(const std::string& name) {
    if (name == "softmax") return ClassifierLoss::softmax;
    if (name == "ns") return ClassifierLoss::negative_sampling;
    if (name == "hs") return ClassifierLoss::hierarchical_softmax;
    require(name == "ova", "loss must be softmax, ns, hs or ova");
    return ClassifierLoss::one_vs_all;
}

Classifier model_of(const py::array_t<float>& rows, const py::array_t<float>& outputs, const Bags& bags,
                    const std::optional<Paths>& paths, const std::string& loss, bool training) {
    const Matrix r = matrix_of(rows, "rows", training), o = matrix_of(outputs, "outputs", training);
    require(r.columns == o.columns && r.stride == o.stride, "rows and outputs must have one width and layout");
    require(r.columns > 0 && o.rows > 0 && o.rows < (std::int64_t{1} << 31) && r.rows < (std::int64_t{1} << 31),
            "outputs must have 1 to 2^31 - 1 rows");
    require(r.stride % 16 == 0 && r.stride >= r.columns && r.stride < (1 << 24),
            "rows must lie a multiple of 16 floats apart; see padded_rows");
    Classifier model{};
    model.rows = r.data;
    model.outputs = o.data;
    model.n_labels = static_cast<std::int32_t>(o.rows);
    model.stride = static_cast<int>(r.stride);
    model.vector_size = static_cast<int>(r.columns);
    model.loss = loss_of(loss);
    const auto& [begins, bag_rows] = bags;
    model.bag_begins = vector_of(begins, "bag begins");
    require(begins.size() >= 1, "bag begins must not be empty");
    model.longest_bag = static_cast<int>(
        std::max<std::int64_t>(1, check_begins(model.bag_begins, begins.size() - 1, bag_rows.size(), "bags")));
    check_items(vector_of(bag_rows, "bag rows"), bag_rows.size(), training ? 0 : kNoRow, r.rows, "bag rows");
    model.bag_rows = bag_rows.data();
    require((model.loss == ClassifierLoss::hierarchical_softmax) == paths.has_value(),
            "paths must be given if the loss is hs, and only then");
    if (paths) {
        const auto& [path_begins, nodes, turns] = *paths;
        model.path_begins = vector_of(path_begins, "path begins", o.rows + 1);
        model.longest_path = static_cast<int>(check_begins(model.path_begins, o.rows, nodes.size(), "paths"));
        check_items(vector_of(nodes, "path nodes"), nodes.size(), 0, o.rows - 1, "path nodes");
        model.path_nodes = nodes.data();
        model.path_turns = vector_of(turns, "path turns", nodes.size());
    }
    return model;
}

const float* weights_of(const py::array_t<float>& weights, const char* name, std::int64_t n) {
    const float* weight = vector_of(weights, name, n);
    require(std::all_of(weight, weight + n, [](float w) { return w >= 0 && w <= 1e6f; }),
            std::string(name) + " must lie in 0 .. 10^6");
    return weight;
}

py::tuple train(py::array_t<float>& rows, py::array_t<float>& outputs, const Bags& bags, const Bags& labels,
                const std::optional<py::array_t<float>>& weights,
                const std::optional<py::array_t<float>>& label_weights,
                const std::optional<Array<std::uint32_t>>& noise, const std::optional<Paths>& paths,
                const std::string& loss, std::int64_t begin, std::int64_t end, int epoch, int epochs, int negative,
                float learning_rate, std::uint64_t seed, int threads) {
    ClassifierTraining task{};
    task.model = model_of(rows, outputs, bags, paths, loss, true);
    const std::int64_t n = std::get<0>(bags).size() - 1, n_labels = task.model.n_labels;
    task.n_examples = n;
    task.label_begins = vector_of(std::get<0>(labels), "label begins", n + 1);
    check_begins(task.label_begins, n, std::get<1>(labels).size(), "labels");
    check_items(vector_of(std::get<1>(labels), "labels"), std::get<1>(labels).size(), 0, n_labels, "labels");
    task.labels = std::get<1>(labels).data();
    if (weights) task.weights = weights_of(*weights, "weights", n);
    if (label_weights) task.label_weights = weights_of(*label_weights, "label_weights", n_labels);
    require((task.model.loss == ClassifierLoss::negative_sampling) == noise.has_value(),
            "noise must be given if the loss is ns, and only then");
    if (noise) {
        require(noise->ndim() == 2 && noise->shape(0) == n_labels && noise->shape(1) == 2,
                "noise must be alias_table(...) of all labels");
        task.noise = reinterpret_cast<const AliasCell*>(noise->data());
        for (std::int64_t i = 0; i < n_labels; ++i) {
            require(task.noise[i].alias < static_cast<std::uint32_t>(n_labels),
                    "noise must have aliases below the number of labels");
        }
        require(negative >= 1 && negative <= 10000, "negative must lie in 1 .. 10000");
        task.negative = negative;
    }
    require(0 <= begin && begin <= end && end <= n, "begin and end must lie in 0 .. the number of examples");
    require(epochs >= 1 && 0 <= epoch && epoch < epochs, "epoch must lie in 0 .. epochs - 1");
    task.epoch = epoch;
    task.epochs = epochs;
    task.learning_rate = learning_rate;
    task.seed = seed;
    threads = threads_of(threads);
    ClassifierTally tally;
    {
        const KernelWork work;
        const AlignedBytes workspace(train_classifier_bytes(task, threads));
        tally = train_classifier(task, begin, end, threads, workspace.data);
    }
    return py::make_tuple(tally.loss, tally.examples, tally.diverged_at);
}

void predict(py::array_t<float>& probabilities, const py::array_t<float>& rows, const py::array_t<float>& outputs,
             const Bags& bags, const std::optional<Paths>& paths, const std::string& loss, int threads) {
    const Classifier model = model_of(rows, outputs, bags, paths, loss, false);
    const Matrix out = matrix_of(probabilities, "probabilities", true);
    const std::int64_t n = std::get<0>(bags).size() - 1;
    require(out.rows == n && out.columns == model.n_labels && (out.rows <= 1 || out.stride == out.columns),
            "probabilities must be contiguous, with a row for each bag and a column for each label");
    threads = threads_of(threads);
    const KernelWork work;
    const AlignedBytes workspace(predict_classifier_bytes(model, threads));
    predict_classifier(model, n, out.data, threads, workspace.data);
}

py::tuple bags_of(const py::array_t<std::int32_t>& ids, const py::array_t<std::int64_t>& offsets,
                  const py::array_t<std::uint32_t>& hashes, const py::array_t<std::int32_t>& features,
                  const std::optional<Subwords>& subwords, std::uint32_t end_hash, std::int32_t end_feature,
                  std::int32_t n_words, std::int64_t buckets, int word_ngrams,
                  const std::optional<py::array_t<std::int32_t>>& rows, int threads) {
    Texts texts{};
    texts.ids = vector_of(ids, "ids");
    texts.offsets = vector_of(offsets, "offsets");
    require(offsets.size() >= 1, "offsets must not be empty");
    texts.n_documents = offsets.size() - 1;
    check_begins(texts.offsets, texts.n_documents, ids.size(), "offsets");
    const std::int64_t n_different = hashes.size();
    check_items(vector_of(ids, "ids"), ids.size(), 0, n_different, "ids");
    texts.n_different = static_cast<std::int32_t>(n_different);
    texts.hashes = vector_of(hashes, "hashes");
    texts.features = vector_of(features, "features", n_different);
    check_items(vector_of(features, "features"), features.size(), kUnknown, n_words, "features");
    require(n_words >= 0 && buckets >= 0 && n_words + buckets < (std::int64_t{1} << 31),
            "words and buckets together must be fewer than 2^31");
    require(word_ngrams >= 1 && (word_ngrams == 1 || buckets > 0),
            "word_ngrams must be at least 1, and 1 if buckets is 0");
    if (subwords) {
        const auto& [begins, found] = *subwords;
        texts.subword_begins = vector_of(begins, "subword begins", n_different + 1);
        check_begins(texts.subword_begins, n_different, found.size(), "subwords");
        texts.subword_buckets = vector_of(found, "subword buckets");
        for (py::ssize_t i = 0; i < found.size(); ++i) {
            require(texts.subword_buckets[i] < buckets, "subword buckets must lie in 0 .. buckets - 1");
        }
    }
    texts.end_hash = end_hash;
    texts.end_feature = end_feature;
    require(end_feature >= kUnknown && end_feature < n_words, "end_feature must lie in -1 .. n_words - 1");
    BagOptions options{n_words, static_cast<std::uint32_t>(buckets), word_ngrams, nullptr};
    if (rows) options.rows = vector_of(*rows, "rows", n_words + buckets);
    threads = threads_of(threads);
    py::array_t<std::int64_t> begins(offsets.size());
    std::int64_t* const begin = begins.mutable_data();
    {
        const Released release;
        count_bags(texts, options, threads, begin);
    }
    py::array_t<std::int32_t> found(begin[texts.n_documents]);
    std::int32_t* const out = found.mutable_data();
    {
        const Released release;
        fill_bags(texts, options, begin, threads, out);
    }
    return py::make_tuple(begins, found);
}

}  // namespace

void bind_classifier(py::module_& m) {
    m.attr("CLASSIFIER_CELL") = kCell;
    m.def("bags_of_features", &bags_of, py::arg("ids").noconvert(), py::arg("offsets").noconvert(), py::kw_only(),
          py::arg("hashes").noconvert(), py::arg("features").noconvert(), py::arg("subwords").noconvert(),
          py::arg("end_hash"), py::arg("end_feature"), py::arg("n_words"), py::arg("buckets"), py::arg("word_ngrams"),
          py::arg("rows").noconvert(), py::arg("threads"));
    m.def("train_classifier", &train, py::arg("rows").noconvert(), py::arg("outputs").noconvert(), py::kw_only(),
          py::arg("bags").noconvert(), py::arg("labels").noconvert(), py::arg("weights").noconvert(),
          py::arg("label_weights").noconvert(), py::arg("noise").noconvert(), py::arg("paths").noconvert(),
          py::arg("loss"), py::arg("begin"), py::arg("end"), py::arg("epoch"), py::arg("epochs"), py::arg("negative"),
          py::arg("learning_rate"), py::arg("seed"), py::arg("threads"));
    m.def("predict_classifier", &predict, py::arg("probabilities").noconvert(), py::arg("rows").noconvert(),
          py::arg("outputs").noconvert(), py::kw_only(), py::arg("bags").noconvert(), py::arg("paths").noconvert(),
          py::arg("loss"), py::arg("threads"));
}

}  // namespace firth
