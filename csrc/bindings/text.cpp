#include "text/counter.hpp"

#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "bindings/one_at_a_time.hpp"
#include "bindings/packed_words.hpp"

namespace firth {
namespace {

using Counter = OneAtATime<TextCounter>;

Counter::Use use(Counter& counter) { return counter.use("TextCounter"); }

py::tuple pack(const TextCounter& counter) {
    const auto& words = counter.words();
    py::array_t<std::int64_t> offsets(static_cast<py::ssize_t>(words.size()) + 1);
    std::int64_t* offset = offsets.mutable_data();
    offset[0] = 0;
    for (std::size_t i = 0; i < words.size(); ++i) {
        offset[i + 1] = offset[i] + static_cast<std::int64_t>(words[i].size());
    }
    py::array_t<std::uint8_t> text(offset[words.size()]);
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::copy(words[i].begin(), words[i].end(), reinterpret_cast<char*>(text.mutable_data()) + offset[i]);
    }
    return py::make_tuple(text, offsets,
                          py::array_t<std::int64_t>(static_cast<py::ssize_t>(words.size()), counter.counts().data()));
}

std::unique_ptr<Counter> make_counter(const std::optional<py::array_t<std::uint32_t>>& lower, int threads,
                                      std::int64_t min_share) {
    require(min_share >= 1, "min_share must be at least 1");
    TokenizerTable table;
    if (lower) {
        const std::uint32_t* data = vector_of(*lower, "lower");
        require(lower->size() > 0, "lower must not be empty");
        table.lower.assign(data, data + lower->size());
        for (const std::uint32_t code : table.lower) require(code <= 0x10FFFF, "lower must hold code points");
    }
    return std::make_unique<Counter>(std::move(table), threads_of(threads), min_share);
}

void feed(Counter& self, const py::buffer& data) {
    const auto counter = use(self);
    const py::buffer_info info = data.request();
    require(info.ndim == 1 && info.itemsize == 1 && (info.size <= 1 || info.strides[0] == 1),
            "data must be contiguous bytes");
    const Released release;
    counter->feed(static_cast<const char*>(info.ptr), static_cast<std::size_t>(info.size));
}

void feed_tokens(Counter& self, const py::array_t<std::uint8_t>& words, const py::array_t<std::int64_t>& word_offsets,
                 const py::array_t<std::int32_t>& ids, const py::array_t<std::int64_t>& ends) {
    const auto counter = use(self);
    const auto new_words = unpack(words, word_offsets);
    const std::int32_t* id = vector_of(ids, "ids");
    const std::int64_t* end = vector_of(ends, "ends");
    const std::int64_t n = ids.size(), n_documents = ends.size();
    const Released release;
    counter->feed_tokens(new_words, id, n, end, n_documents);
}

py::tuple select(Counter& self, std::int64_t min_count, std::int64_t most) {
    const auto counter = use(self);
    {
        const Released release;
        counter->select(min_count, most);
    }
    return pack(*counter);
}

py::tuple select_given(Counter& self, const py::array_t<std::uint8_t>& words,
                       const py::array_t<std::int64_t>& word_offsets) {
    const auto counter = use(self);
    const auto given = unpack(words, word_offsets);
    {
        const Released release;
        counter->select(given);
    }
    return pack(*counter);
}

void write(Counter& self, py::array_t<std::int32_t>& ids, py::array_t<std::int64_t>& offsets) {
    const auto counter = use(self);
    vector_of(ids, "ids", counter->kept_tokens());
    vector_of(offsets, "offsets", counter->documents() + 1);
    std::int32_t* id = ids.mutable_data();
    std::int64_t* offset = offsets.mutable_data();
    const Released release;
    counter->write(id, offset);
}

// Calls a method without arguments. It may take long, so the GIL is released.
template <auto method>
auto released(Counter& self) {
    const auto counter = use(self);
    const Released release;
    return ((*counter).*method)();
}

template <auto getter>
auto get(Counter& self) {
    return ((*use(self)).*getter)();
}

std::optional<py::tuple> first_invalid(Counter& self) {
    const auto at = use(self)->first_invalid();
    if (!at) return std::nullopt;
    return py::make_tuple(at->byte, at->line);
}

}  // namespace

void bind_text(py::module_& m) {
    py::class_<Counter>(m, "TextCounter")
        .def(py::init(&make_counter), py::kw_only(), py::arg("lower").noconvert() = py::none(), py::arg("threads"),
             py::arg("min_share"))
        .def(
            "begin_file", [](Counter& self, std::int64_t offset) { use(self)->begin_file(offset); }, py::arg("offset"))
        .def("feed", &feed, py::arg("data"))
        .def("end_file", &released<&TextCounter::end_file>)
        .def("feed_tokens", &feed_tokens, py::arg("words").noconvert(), py::arg("word_offsets").noconvert(),
             py::arg("ids").noconvert(), py::arg("ends").noconvert())
        .def("merge", &released<&TextCounter::merge>)
        .def("select", &select, py::arg("min_count"), py::arg("most"))
        .def("select_given", &select_given, py::arg("words").noconvert(), py::arg("word_offsets").noconvert())
        .def("write", &write, py::arg("ids").noconvert(), py::arg("offsets").noconvert())
        .def_property_readonly("documents", &get<&TextCounter::documents>)
        .def_property_readonly("tokens", &get<&TextCounter::tokens>)
        .def_property_readonly("invalid", &get<&TextCounter::invalid>)
        .def_property_readonly("first_invalid", &first_invalid)
        .def_property_readonly("largest_count", &get<&TextCounter::largest_count>)
        .def_property_readonly("kept_tokens", &get<&TextCounter::kept_tokens>);
}

}  // namespace firth
