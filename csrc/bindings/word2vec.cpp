#include "runtime/word2vec.hpp"

#include "bindings/check.hpp"

namespace firth {
namespace {

py::tuple train(py::array_t<float>& vectors, py::array_t<float>& context, const py::array_t<std::int32_t>& ids,
                const py::array_t<std::int64_t>& offsets, const py::array_t<std::uint32_t>& keep,
                const Array<std::uint32_t>& noise, std::int64_t begin, std::int64_t end, int epoch, int epochs,
                int window, int negative, float learning_rate, float min_learning_rate, std::uint64_t seed,
                int threads) {
    const Matrix v = matrix_of(vectors, "vectors", true), c = matrix_of(context, "context", true);
    require(v.rows == c.rows && v.columns == c.columns && v.stride == c.stride,
            "vectors and context must have one shape and layout");
    require(v.rows > 0 && v.columns > 0, "vectors must not be empty");
    require(v.stride % 16 == 0 && v.stride >= v.columns && v.stride < (1 << 24),
            "rows must lie a multiple of 16 floats apart; see padded_rows");
    SkipGram task{};
    task.vectors = v.data;
    task.context = c.data;
    task.ids = vector_of(ids, "ids");
    task.offsets = vector_of(offsets, "offsets");
    task.keep = vector_of(keep, "keep", v.rows);
    require(noise.ndim() == 2 && noise.shape(0) == v.rows && noise.shape(1) == 2,
            "noise must be alias_table(...) of all words");
    task.noise = reinterpret_cast<const AliasCell*>(noise.data());
    task.n_tokens = ids.size();
    task.n_documents = offsets.size() - 1;
    task.n_words = static_cast<std::int32_t>(v.rows);
    task.stride = static_cast<int>(v.stride);
    task.vector_size = static_cast<int>(v.columns);
    task.window = window;
    task.negative = negative;
    task.epochs = epochs;
    task.epoch = epoch;
    task.learning_rate = learning_rate;
    task.min_learning_rate = min_learning_rate;
    task.seed = seed;
    require(window >= 1 && window <= 10000, "window must lie in 1 .. 10000");
    require(negative >= 1 && negative <= 10000, "negative must lie in 1 .. 10000");
    require(task.n_documents >= 1 && task.offsets[0] == 0 && task.offsets[task.n_documents] == task.n_tokens,
            "offsets must run from 0 to the number of ids");
    require(0 <= begin && begin <= end && end <= task.n_tokens, "begin and end must lie in 0 .. the number of ids");
    require(epochs >= 1 && 0 <= epoch && epoch < epochs, "epoch must lie in 0 .. epochs - 1");
    threads_of(threads);
    for (std::int32_t i = 0; i < task.n_words; ++i) {
        if (task.noise[i].alias >= static_cast<std::uint32_t>(task.n_words)) {
            throw std::invalid_argument("noise names a word beyond the last one");
        }
    }
    SkipGramTally tally;
    {
        const py::gil_scoped_release release;
        tally = train_skipgram(task, begin, end, threads);
    }
    return py::make_tuple(tally.loss, tally.examples, tally.centres, tally.diverged_at);
}

}  // namespace

void bind_word2vec(py::module_& m) {
    m.def("train_skipgram", &train, py::arg("vectors").noconvert(), py::arg("context").noconvert(), py::kw_only(),
          py::arg("ids").noconvert(), py::arg("offsets").noconvert(), py::arg("keep").noconvert(),
          py::arg("noise").noconvert(), py::arg("begin"), py::arg("end"), py::arg("epoch"), py::arg("epochs"),
          py::arg("window"), py::arg("negative"), py::arg("learning_rate"), py::arg("min_learning_rate"),
          py::arg("seed"), py::arg("threads"));
}

}  // namespace firth
