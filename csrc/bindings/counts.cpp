#include "runtime/counts.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

#include "bindings/check.hpp"
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

// Holds what every call needs of a corpus, so that rows may be asked for a range at a time. `counts` is what
// count_words gave for these ids, which it has checked: nothing of that is looked at again.
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
        const py::gil_scoped_release release;
        starts_.emplace(task_);
    }

    // Finds where the words [first, first + n) stand; rows are then had of these.
    void find_places(std::int32_t first, std::int32_t n, int threads) {
        require(first >= 0 && n >= 0 && first <= task_.n_words - n, "words must lie in the vocabulary");
        threads_of(threads);
        const py::gil_scoped_release release;
        places_ = Places();  // given back before more is taken
        places_ = Places(task_, counts_.data(), first, n, threads);
    }

    CooccurrenceRows rows(std::int32_t first, std::int32_t n, int threads) const {
        require(first >= places_.first() && n >= 0 && first <= places_.end() - n,
                "rows must be of words whose places are known");
        threads_of(threads);
        const py::gil_scoped_release release;
        return cooccurrence_rows(task_, *starts_, places_, first, n, threads);
    }

  private:
    py::array_t<std::int32_t> ids_;
    py::array_t<std::int64_t> offsets_, counts_;
    std::vector<std::uint64_t> left_, right_;
    CooccurrenceTask task_{};
    std::optional<DocumentStarts> starts_;
    Places places_;
};

py::array_t<std::int64_t> lengths(const CooccurrenceRows& rows) {
    return py::array_t<std::int64_t>(static_cast<py::ssize_t>(rows.lengths.size()), rows.lengths.data());
}

// Views of columns and values, piece by piece.
py::list pieces(const py::object& self) {
    py::list views;
    for (const auto& piece : self.cast<const CooccurrenceRows&>().pieces) {
        views.append(py::make_tuple(py::array_t<std::int32_t>(piece.size, piece.columns.as<std::int32_t>(), self),
                                    py::array_t<float>(piece.size, piece.values.as<float>(), self)));
    }
    return views;
}

// All columns and values end to end. The rows are empty afterwards: each piece is given back when it is copied.
template <class Index>
py::tuple joined(const std::vector<CooccurrenceRows*>& parts, int threads) {
    std::vector<CooccurrenceRows::Piece*> all;
    std::vector<std::int64_t> begins{0};
    for (CooccurrenceRows* rows : parts) {
        for (auto& piece : rows->pieces) {
            all.push_back(&piece);
            begins.push_back(begins.back() + piece.size);
        }
    }
    Array<Index> columns(begins.back());
    Array<float> values(begins.back());
    auto* const column = columns.mutable_data();
    auto* const value = values.mutable_data();
    {
        const py::gil_scoped_release release;
        std::atomic<std::size_t> next{0};
        parallel(threads_of(threads), [&](int) {
            for (std::size_t i; (i = next++) < all.size();) {
                const CooccurrenceRows::Piece piece = std::move(*all[i]);
                std::copy_n(piece.columns.as<std::int32_t>(), piece.size, column + begins[i]);
                std::copy_n(piece.values.as<float>(), piece.size, value + begins[i]);
            }
        });
        for (CooccurrenceRows* rows : parts) rows->pieces.clear();
    }
    return py::make_tuple(columns, values);
}

py::tuple join(const std::vector<CooccurrenceRows*>& parts, bool wide, int threads) {
    return wide ? joined<std::int64_t>(parts, threads) : joined<std::int32_t>(parts, threads);
}

}  // namespace

void bind_counts(py::module_& m) {
    py::class_<CooccurrenceRows>(m, "CooccurrenceRows")
        .def_property_readonly("lengths", &lengths)
        .def("pieces", &pieces);
    m.def("join_rows", &join, py::arg("rows"), py::kw_only(), py::arg("wide"), py::arg("threads"));
    py::class_<CooccurrenceCounter>(m, "CooccurrenceCounter")
        .def(py::init<const py::array_t<std::int32_t>&, const py::array_t<std::int64_t>&,
                      const py::array_t<std::int64_t>&, int, const std::optional<py::array_t<double>>&,
                      const std::optional<py::array_t<double>>&>(),
             py::arg("ids").noconvert(), py::arg("offsets").noconvert(), py::arg("counts").noconvert(), py::kw_only(),
             py::arg("window"), py::arg("left"), py::arg("right"))
        .def("find_places", &CooccurrenceCounter::find_places, py::arg("first"), py::arg("n"), py::kw_only(),
             py::arg("threads"))
        .def("rows", &CooccurrenceCounter::rows, py::arg("first"), py::arg("n"), py::kw_only(), py::arg("threads"));
}

}  // namespace firth
