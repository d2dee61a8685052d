#include "runtime/counts.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "bindings/check.hpp"
#include "bindings/one_at_a_time.hpp"
#include "runtime/threads.hpp"

namespace firth {
namespace {

// Weights in units of 2^-kWeightBits.
std::vector<std::uint64_t> units(const py::array_t<double>& weights, const char* name, int window) {
    const double* weight = vector_of(weights, name, window);
    std::vector<std::uint64_t> result;
    for (int d = 0; d < window; ++d) {
        require(weight[d] >= 0 && weight[d] <= 1, std::string(name) + " must lie in 0 .. 1");
        result.push_back(static_cast<std::uint64_t>(std::llround(std::ldexp(weight[d], kWeightBits))));
    }
    return result;
}

// Columns and values of rows, concatenated. Pages that are never written to take no memory, so there may be many.
struct CooccurrenceRows {
    explicit CooccurrenceRows(std::int64_t most)
        : room(most),
          columns(static_cast<std::size_t>(most) * sizeof(std::int32_t)),
          values(static_cast<std::size_t>(most) * sizeof(float)) {}

    // Returns unused memory to the system.
    void trim() {
        room = size;
        columns.keep(static_cast<std::size_t>(size) * sizeof(std::int32_t));
        values.keep(static_cast<std::size_t>(size) * sizeof(float));
    }

    std::int64_t room;
    std::int64_t size = 0;
    Pages columns;  // int32
    Pages values;   // float
};

using Rows = OneAtATime<CooccurrenceRows>;

Rows::Use use(Rows& rows) { return rows.use("CooccurrenceRows"); }

// Keeps what every call needs of a corpus, so that ranges of rows can be counted one after the other. `counts` is what
// count_words returned for these ids. It has checked them, so they are not checked again.
class CooccurrenceCounter {
  public:
    CooccurrenceCounter(const py::array_t<std::int32_t>& ids, const py::array_t<std::int64_t>& offsets,
                        const py::array_t<std::int64_t>& counts, int window,
                        const std::optional<py::array_t<double>>& left, const std::optional<py::array_t<double>>& right)
        : ids_(ids), offsets_(offsets), counts_(counts) {
        require(window >= 1 && window <= (1 << 20), "window must lie in 1 .. 2^20");
        require(left || right, "left or right must be given");
        task_.ids = vector_of(ids, "ids");
        task_.offsets = vector_of(offsets, "offsets");
        task_.n_tokens = ids.size();
        task_.n_documents = offsets.size() - 1;
        task_.n_words = static_cast<std::int32_t>(counts.size());
        task_.window = window;
        vector_of(counts, "counts");
        if (left) task_.left = (left_ = units(*left, "left", window)).data();
        if (right) task_.right = (right_ = units(*right, "right", window)).data();
        require(task_.n_documents >= 0 && task_.offsets[task_.n_documents] == task_.n_tokens,
                "offsets must run from 0 to the number of ids");
        const Released release;
        starts_.emplace(task_);
    }

    // Finds the places of the words [first, first + n). Then their rows can be counted.
    void find_places(std::int32_t first, std::int32_t n, int threads) {
        require(first >= 0 && n >= 0 && first <= task_.n_words - n, "words must lie in the vocabulary");
        threads = threads_of(threads);
        const Released release;
        space_ = nullptr;  // released before more is allocated
        places_ = Places();
        places_ = Places(task_, counts_.data(), first, n, threads);
    }

    // Appends rows [first, first + n) and returns the length of each.
    Array<std::int64_t> rows(std::int32_t first, std::int32_t n, Rows& to, int threads) {
        const auto out = use(to);
        require_places(first, n);
        threads = threads_of(threads);
        const std::int64_t near = (task_.left ? task_.window : 0) + (task_.right ? task_.window : 0);
        std::int64_t most = 0;
        for (std::int32_t row = first; row < first + n; ++row) {
            most += std::min<std::int64_t>(task_.n_words, places_.count(row) * near);
        }
        require(most <= out->room - out->size, "out is too small for the most non-zeros that these rows can have");
        Array<std::int64_t> lengths(n);
        std::int64_t* const length = lengths.mutable_data();
        const Released release;
        out->size += count_rows(task_, *starts_, places_, first, n, length, out->columns.as<std::int32_t>() + out->size,
                                out->values.as<float>() + out->size, threads, space_);
        return lengths;
    }

    // The work items of rows [first, first + n), see CountItem: (row, end_row, begin, end, parts) of each.
    Array<std::int64_t> items(std::int32_t first, std::int32_t n, int threads) const {
        require_places(first, n);
        require(threads >= 1, "threads must be at least 1");
        const std::vector<CountItem> found = count_items(task_, places_, first, n, threads);
        Array<std::int64_t> result({static_cast<py::ssize_t>(found.size()), py::ssize_t{5}});
        std::int64_t* to = result.mutable_data();
        for (const CountItem& item : found) {
            for (const std::int64_t value :
                 {std::int64_t{item.row}, std::int64_t{item.end_row}, item.begin, item.end, std::int64_t{item.parts}}) {
                *to++ = value;
            }
        }
        return result;
    }

  private:
    void require_places(std::int32_t first, std::int32_t n) const {
        require(first >= places_.first() && n >= 0 && first <= places_.end() - n,
                "rows must be within the words of the last find_places");
    }

    py::array_t<std::int32_t> ids_;
    py::array_t<std::int64_t> offsets_, counts_;
    std::vector<std::uint64_t> left_, right_;
    CooccurrenceTask task_{};
    std::optional<DocumentStarts> starts_;
    Places places_;
    std::shared_ptr<CountSpace> space_;
};

using Counter = OneAtATime<CooccurrenceCounter>;

Counter::Use use(Counter& counter) { return counter.use("CooccurrenceCounter"); }

// The counted rows as a NumPy array, which keeps `self` alive.
template <class T>
py::array_t<T> view(const py::object& self, Pages CooccurrenceRows::* pages) {
    const auto rows = use(self.cast<Rows&>());
    return py::array_t<T>(rows->size, ((*rows).*pages).template as<T>(), self);
}

}  // namespace

void bind_counts(py::module_& m) {
    py::class_<Rows>(m, "CooccurrenceRows")
        .def(py::init([](std::int64_t most) {
                 require(most >= 0 && most < (std::int64_t{1} << 48), "most must lie in 0 .. 2^48");
                 return std::make_unique<Rows>(most);
             }),
             py::arg("most"))
        .def_property_readonly(
            "columns", [](const py::object& self) { return view<std::int32_t>(self, &CooccurrenceRows::columns); })
        .def_property_readonly("values",
                               [](const py::object& self) { return view<float>(self, &CooccurrenceRows::values); })
        .def("trim", [](Rows& self) { use(self)->trim(); });
    py::class_<Counter>(m, "CooccurrenceCounter")
        .def(py::init<const py::array_t<std::int32_t>&, const py::array_t<std::int64_t>&,
                      const py::array_t<std::int64_t>&, int, const std::optional<py::array_t<double>>&,
                      const std::optional<py::array_t<double>>&>(),
             py::arg("ids").noconvert(), py::arg("offsets").noconvert(), py::arg("counts").noconvert(), py::kw_only(),
             py::arg("window"), py::arg("left"), py::arg("right"))
        .def(
            "find_places",
            [](Counter& self, std::int32_t first, std::int32_t n, int threads) {
                use(self)->find_places(first, n, threads);
            },
            py::arg("first"), py::arg("n"), py::kw_only(), py::arg("threads"))
        .def(
            "rows",
            [](Counter& self, std::int32_t first, std::int32_t n, Rows& out, int threads) {
                return use(self)->rows(first, n, out, threads);
            },
            py::arg("first"), py::arg("n"), py::kw_only(), py::arg("out"), py::arg("threads"))
        .def(
            "items",
            [](Counter& self, std::int32_t first, std::int32_t n, int threads) {
                return use(self)->items(first, n, threads);
            },
            py::arg("first"), py::arg("n"), py::kw_only(), py::arg("threads"));
}

}  // namespace firth
