#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bindings/lists.hpp"
#include "runtime/isa.hpp"
#include "runtime/sampling.hpp"
#include "runtime/trace.hpp"

namespace firth {
namespace {

Array<std::uint32_t> alias_table(const py::array_t<double>& weights) {
    const double* data = vector_of(weights, "weights");
    require(weights.size() > 0, "weights must not be empty");
    require(weights.size() < (1LL << 31), "weights must have fewer than 2^31 elements");
    Array<std::uint32_t> cells({weights.size(), py::ssize_t{2}});
    build_alias_table(reinterpret_cast<AliasCell*>(cells.mutable_data()), data,
                      static_cast<std::size_t>(weights.size()));
    return cells;
}

void uniform(py::array_t<float>& out, float scale, std::uint64_t seed, int threads,
             const std::optional<py::array_t<std::int64_t>>& numbers) {
    const Matrix m = matrix_of(out, "out", true);
    const std::int64_t* number = numbers ? vector_of(*numbers, "numbers", m.rows) : nullptr;
    threads = threads_of(threads);
    const Released release;
    fill_uniform(m.data, static_cast<std::size_t>(m.rows), static_cast<std::size_t>(m.columns),
                 static_cast<std::size_t>(m.stride), number, scale, seed, threads);
}

// Training indexes rows by ids without checks, so a corpus is checked once before. The same pass counts how often each
// word occurs. O(tokens + documents). Threads have counts of their own, which take at most as much memory as the ids.
Array<std::int64_t> count_words(const py::array_t<std::int32_t>& ids, const py::array_t<std::int64_t>& offsets,
                                std::int64_t n_words, int threads) {
    const std::int32_t* id = vector_of(ids, "ids");
    const std::int64_t* offset = vector_of(offsets, "offsets");
    const std::int64_t n = ids.size(), n_offsets = offsets.size();
    require(n_words >= 0, "n_words must not be negative");
    threads = static_cast<int>(std::clamp<std::int64_t>(n / (2 * n_words + 1), 1, threads_of(threads)));
    Array<std::int64_t> result(n_words);
    std::int64_t* counts = result.mutable_data();
    const Released release;
    require(n_offsets >= 1, "offsets must not be empty");
    check_begins(offset, n_offsets - 1, n, "offsets");
    std::vector<std::vector<std::int64_t>> counted(static_cast<std::size_t>(threads));
    parallel_shares(n, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        const Traced traced("count words", thread, thread);
        std::vector<std::int64_t>& mine = counted[static_cast<std::size_t>(thread)];
        mine.assign(static_cast<std::size_t>(n_words), 0);
        in_steps(begin, end, 1 << 22, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t i = from; i < to; ++i) {
                if (id[i] < 0 || id[i] >= n_words) {
                    throw std::invalid_argument("ids[" + std::to_string(i) + "] = " + std::to_string(id[i]) +
                                                " is not an id of one of " + std::to_string(n_words) + " words");
                }
                ++mine[static_cast<std::size_t>(id[i])];
            }
        });
    });
    parallel_shares(n_words, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        const Traced traced("add up words", thread, thread);
        std::fill(counts + begin, counts + end, 0);
        for (const std::vector<std::int64_t>& part : counted) {
            for (std::int64_t w = begin; w < end; ++w) counts[w] += part[static_cast<std::size_t>(w)];
        }
    });
    return result;
}

// The work items since start_trace: (work, item, thread, begin, end, CPU time) of each, in nanoseconds.
py::list stop_trace() {
    py::list result;
    for (const TracedItem& one : Traced::stop()) {
        result.append(py::make_tuple(one.work, one.item, one.thread, one.begin, one.end, one.cpu));
    }
    return result;
}

}  // namespace

void bind_runtime(py::module_& m) {
    m.def("current_isa", &current_isa_name);
    m.def("built_isas", &built_isas);
    m.def("available_isas", &available_isas);
    m.def("use_isa", &use_isa, py::arg("name"));
#ifdef _OPENMP
    m.attr("OPENMP") = true;
#else
    m.attr("OPENMP") = false;
#endif
    m.attr("COMPILER") = __VERSION__;
    m.def("alias_table", &alias_table, py::arg("weights").noconvert());
    m.def("count_words", &count_words, py::arg("ids").noconvert(), py::arg("offsets").noconvert(), py::arg("n_words"),
          py::kw_only(), py::arg("threads") = 1);
    m.def("start_trace", &Traced::start);
    m.def("stop_trace", &stop_trace);
    m.def("fill_uniform", &uniform, py::arg("out").noconvert(), py::kw_only(), py::arg("scale"), py::arg("seed"),
          py::arg("threads"), py::arg("numbers").noconvert() = py::none());
}

}  // namespace firth
