#include "runtime/word2vec.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "bindings/lists.hpp"
#include "runtime/aligned.hpp"
#include "runtime/huffman.hpp"
#include "runtime/pages.hpp"

namespace firth {
namespace {

// Where each word's bag begins, and rows; where its path begins, nodes and turns.
using Bags = std::tuple<py::array_t<std::int64_t>, py::array_t<std::int32_t>>;
using Paths = std::tuple<py::array_t<std::int64_t>, py::array_t<std::int32_t>, py::array_t<std::int8_t>>;

py::tuple train(py::array_t<float>& vectors, py::array_t<float>& context, const py::array_t<std::int32_t>& ids,
                const py::array_t<std::int64_t>& offsets, const py::array_t<std::uint32_t>& keep,
                const std::optional<Array<std::uint32_t>>& noise, const std::optional<Bags>& bags,
                const std::optional<Paths>& paths, bool cbow, bool cbow_mean, std::int64_t begin, std::int64_t end,
                int epoch, int epochs, int window, int negative, float learning_rate, float min_learning_rate,
                std::uint64_t seed, bool deterministic, int threads) {
    const Matrix v = matrix_of(vectors, "vectors", true), c = matrix_of(context, "context", true);
    const std::int64_t n_words = keep.size();
    require(v.columns == c.columns && v.stride == c.stride, "vectors and context must have one width and layout");
    require(v.rows > 0 && v.columns > 0, "vectors must not be empty");
    require(v.stride % 16 == 0 && v.stride >= v.columns && v.stride < (1 << 24),
            "rows must lie a multiple of 16 floats apart; see padded_rows");
    Word2Vec task{};
    task.vectors = v.data;
    task.context = c.data;
    task.ids = vector_of(ids, "ids");
    task.offsets = vector_of(offsets, "offsets");
    task.keep = vector_of(keep, "keep");
    task.n_tokens = ids.size();
    task.n_documents = offsets.size() - 1;
    task.n_words = static_cast<std::int32_t>(n_words);
    task.stride = static_cast<int>(v.stride);
    task.vector_size = static_cast<int>(v.columns);
    task.cbow = cbow;
    task.cbow_mean = cbow_mean;
    task.window = window;
    task.negative = negative;
    task.epochs = epochs;
    task.epoch = epoch;
    task.learning_rate = learning_rate;
    task.min_learning_rate = min_learning_rate;
    task.seed = seed;
    task.longest_bag = 1;
    task.n_rows_in = v.rows;
    task.n_rows_out = c.rows;
    require(noise.has_value() != paths.has_value(), "either noise or paths must be given");
    if (noise) {
        require(noise->ndim() == 2 && noise->shape(0) == n_words && noise->shape(1) == 2,
                "noise must be alias_table(...) of all words");
        require(c.rows == n_words, "context must have a row for each word");
        task.noise = reinterpret_cast<const AliasCell*>(noise->data());
        for (std::int32_t i = 0; i < task.n_words; ++i) {
            require(task.noise[i].alias < static_cast<std::uint32_t>(n_words),
                    "noise must have aliases below the number of words");
        }
    } else {
        const auto& [begins, nodes, turns] = *paths;
        task.path_begins = vector_of(begins, "path begins", n_words + 1);
        task.longest_path = static_cast<int>(check_begins(task.path_begins, n_words, nodes.size(), "path begins"));
        check_items(vector_of(nodes, "path nodes"), nodes.size(), 0, c.rows, "path nodes");
        task.path_nodes = nodes.data();
        task.path_turns = vector_of(turns, "path turns", nodes.size());
    }
    if (bags) {
        const auto& [begins, rows] = *bags;
        task.bag_begins = vector_of(begins, "bag begins", n_words + 1);
        task.longest_bag = static_cast<int>(check_begins(task.bag_begins, n_words, rows.size(), "bag begins"));
        check_items(vector_of(rows, "bag rows"), rows.size(), 0, v.rows, "bag rows");
        require(task.longest_bag <= 1 << 20, "bags must have at most 2^20 rows");
        task.bag_rows = rows.data();
        for (std::int64_t w = 0; w < n_words; ++w)
            require(task.bag_begins[w] < task.bag_begins[w + 1], "a bag is empty");
    } else {
        require(v.rows == n_words, "vectors must have a row for each word");
    }
    require(window >= 1 && window <= 10000, "window must lie in 1 .. 10000");
    require(negative >= 1 && negative <= 10000, "negative must lie in 1 .. 10000");
    // Only the ends: count_words has checked all offsets, and this is called every few thousand tokens.
    require(task.n_documents >= 1 && task.offsets[0] == 0 && task.offsets[task.n_documents] == task.n_tokens,
            "offsets must run from 0 to the number of ids");
    require(0 <= begin && begin <= end && end <= task.n_tokens, "begin and end must lie in 0 .. the number of ids");
    require(begin % kStretchTokens == 0 && (end % kStretchTokens == 0 || end == task.n_tokens),
            "begin and end must be multiples of " + std::to_string(kStretchTokens) + ", or the number of ids");
    require(epochs >= 1 && 0 <= epoch && epoch < epochs, "epoch must lie in 0 .. epochs - 1");
    threads = threads_of(threads);
    Word2VecTally tally;
    {
        const KernelWork work;
        if (deterministic) {
            const Pages workspace(static_cast<std::size_t>(train_word2vec_rounds_bytes(task, threads)));
            tally = train_word2vec_rounds(task, begin, end, threads, workspace.as<void>());
        } else {
            const AlignedBytes workspace(train_word2vec_bytes(task, begin, end, threads));
            tally = train_word2vec(task, begin, end, threads, workspace.data);
        }
    }
    return py::make_tuple(tally.loss, tally.examples, tally.centers, tally.diverged_at);
}

py::tuple tree(const py::array_t<std::int64_t>& counts) {
    const std::int64_t* count = vector_of(counts, "counts");
    require(counts.size() < (std::int64_t{1} << 31), "counts must be fewer than 2^31");
    for (py::ssize_t i = 1; i < counts.size(); ++i) require(count[i - 1] >= count[i], "counts must descend");
    Huffman found;
    {
        const Released release;
        found = huffman(count, static_cast<std::int32_t>(counts.size()));
    }
    const auto array = [](const auto& values) {
        return py::array_t<typename std::decay_t<decltype(values)>::value_type>(static_cast<py::ssize_t>(values.size()),
                                                                                values.data());
    };
    return py::make_tuple(array(found.begins), array(found.nodes), array(found.turns));
}

}  // namespace

void bind_word2vec(py::module_& m) {
    m.attr("ROW_FLOATS") = kRowFloats;
    m.attr("TARGETS") = kTargets;
    m.attr("NEIGHBORS") = kHidden;
    m.attr("STRETCH_TOKENS") = kStretchTokens;
    m.attr("GROUP") = kGroup;
    m.attr("BLOCK_TOKENS") = kBlockTokens;
    m.attr("ROUND_TOKENS") = kRoundTokens;
    m.attr("POOL") = kPool;
    m.attr("CURVATURE") = kCurvature;
    m.def("huffman", &tree, py::arg("counts").noconvert());
    m.def("train_word2vec", &train, py::arg("vectors").noconvert(), py::arg("context").noconvert(), py::kw_only(),
          py::arg("ids").noconvert(), py::arg("offsets").noconvert(), py::arg("keep").noconvert(),
          py::arg("noise").noconvert(), py::arg("bags").noconvert(), py::arg("paths").noconvert(), py::arg("cbow"),
          py::arg("cbow_mean"), py::arg("begin"), py::arg("end"), py::arg("epoch"), py::arg("epochs"),
          py::arg("window"), py::arg("negative"), py::arg("learning_rate"), py::arg("min_learning_rate"),
          py::arg("seed"), py::arg("deterministic"), py::arg("threads"));
}

}  // namespace firth
