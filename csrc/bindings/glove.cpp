#include "runtime/glove.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "bindings/check.hpp"
#include "bindings/one_at_a_time.hpp"
#include "runtime/aligned.hpp"
#include "runtime/glove_tiles.hpp"

namespace firth {
namespace {

using Tiles = OneAtATime<GloveTiles>;

std::unique_ptr<Tiles> tiles(const py::array_t<std::int64_t>& indptr, const py::array& indices,
                             const py::array_t<float>& data, std::uint64_t seed, int threads) {
    const std::int64_t* begins = vector_of(indptr, "indptr");
    const float* values = vector_of(data, "data");
    require(indptr.size() >= 1 && indptr.size() <= (std::int64_t{1} << 31),
            "indptr must have one element more than rows");
    const auto n = static_cast<std::int32_t>(indptr.size() - 1);
    require(begins[0] == 0 && begins[n] == data.size(), "indptr must run from 0 to the number of non-zeros");
    threads = threads_of(threads);
    const auto made = [&](const auto& columns) {
        const auto* column = vector_of(columns, "indices", data.size());
        const Released release;
        return std::make_unique<Tiles>(begins, column, values, n, seed, threads);
    };
    if (py::isinstance<py::array_t<std::int32_t>>(indices)) return made(py::array_t<std::int32_t>(indices));
    if (py::isinstance<py::array_t<std::int64_t>>(indices)) return made(py::array_t<std::int64_t>(indices));
    throw std::invalid_argument("indices must be int32 or int64");
}

py::tuple train(Tiles& self, py::array_t<float>& words, py::array_t<float>& contexts, int vector_size, float x_max,
                float alpha, float learning_rate, float clip_value, std::int64_t begin, std::int64_t end,
                std::uint64_t epoch, int threads) {
    const auto tiles = self.use("GloveTiles");
    const Matrix w = matrix_of(words, "words", true), c = matrix_of(contexts, "contexts", true);
    require(w.rows == tiles->n_words() && c.rows == tiles->n_words(),
            "words and contexts must have a row for each word");
    require(w.columns == c.columns && w.stride == w.columns && c.stride == c.columns && w.columns % 32 == 0 &&
                w.columns < (1 << 24),
            "rows must be a multiple of 32 floats, one after the other");
    require(vector_size >= 1 && vector_size + 2 <= w.columns / 2, "rows must hold twice vector_size + 2 floats");
    require(x_max > 0 && std::isnormal(x_max), "x_max must be above 0");
    require(alpha >= 0 && std::isfinite(alpha), "alpha must not be negative");
    require(0 <= begin && begin <= end && end <= tiles->size(),
            "begin and end must lie in 0 .. the number of non-zeros");
    threads = threads_of(threads);
    Glove task{};
    task.words = w.data;
    task.contexts = c.data;
    task.stride = static_cast<int>(w.columns / 2);
    task.vector_size = vector_size;
    task.x_max = x_max;
    task.alpha = alpha;
    task.learning_rate = learning_rate;
    task.clip_value = clip_value;
    GloveTally tally;
    {
        const KernelWork work;
        const GloveSlices slices = tiles->slices(begin, end, epoch);
        const AlignedBytes workspace(train_glove_bytes(task, slices));
        tally = train_glove(task, slices, threads, workspace.data);
    }
    return py::make_tuple(tally.cost, tally.cost_part, tally.entries, tally.row);
}

// The slices of an epoch in their order: (block of rows, block of columns, entries) of each.
Array<std::int64_t> slices(Tiles& self, std::uint64_t epoch) {
    const auto tiles = self.use("GloveTiles");
    const GloveSlices found = tiles->slices(0, tiles->size(), epoch);
    Array<std::int64_t> result({static_cast<py::ssize_t>(found.n), py::ssize_t{3}});
    std::int64_t* to = result.mutable_data();
    for (std::int64_t i = 0; i < found.n; ++i) {
        *to++ = found[i].row_block;
        *to++ = found[i].column_block;
        *to++ = found[i].end - found[i].begin;
    }
    return result;
}

}  // namespace

void bind_glove(py::module_& m) {
    m.attr("GLOVE_LEAST_BLOCKS") = kGloveLeastBlocks;
    m.attr("GLOVE_MOST_BLOCKS") = kGloveMostBlocks;
    m.attr("GLOVE_TILE_ENTRIES") = kGloveTileEntries;
    m.attr("GLOVE_SLICE_ENTRIES") = kGloveSliceEntries;
    py::class_<Tiles>(m, "GloveTiles")
        .def(py::init(&tiles), py::arg("indptr").noconvert(), py::arg("indices"), py::arg("data").noconvert(),
             py::kw_only(), py::arg("seed"), py::arg("threads"))
        .def("slices", &slices, py::arg("epoch"))
        .def("train", &train, py::arg("words").noconvert(), py::arg("contexts").noconvert(), py::kw_only(),
             py::arg("vector_size"), py::arg("x_max"), py::arg("alpha"), py::arg("learning_rate"),
             py::arg("clip_value"), py::arg("begin"), py::arg("end"), py::arg("epoch"), py::arg("threads"));
}

}  // namespace firth
