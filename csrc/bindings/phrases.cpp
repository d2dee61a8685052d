#include "text/phrases.hpp"

#include <algorithm>

#include "bindings/check.hpp"

namespace firth {
namespace {

Documents documents_of(const py::array_t<std::int32_t>& ids, const py::array_t<std::int64_t>& offsets) {
    const Documents documents{vector_of(ids, "ids"), vector_of(offsets, "offsets"), offsets.size() - 1};
    const std::int64_t n = documents.n_documents;
    require(n >= 0 && documents.offsets[0] == 0 && documents.offsets[n] == ids.size() &&
                std::is_sorted(documents.offsets, documents.offsets + n + 1),
            "offsets must rise from 0 to the number of ids");
    return documents;
}

struct Target {
    std::int32_t* ids;
    std::int64_t* offsets;
};

Target target_of(py::array_t<std::int32_t>& ids, py::array_t<std::int64_t>& offsets, std::int64_t n_ids,
                 const py::array_t<std::int64_t>& read, std::int64_t n_offsets) {
    vector_of(ids, "out", n_ids);
    vector_of(offsets, "out_offsets", n_offsets);
    const Target target{ids.mutable_data(), offsets.mutable_data()};
    require(target.offsets != read.data(), "out_offsets must not be offsets itself");
    return target;
}

std::int64_t merge(const py::array_t<std::int32_t>& ids, const py::array_t<std::int64_t>& offsets,
                   py::array_t<std::int32_t>& out, py::array_t<std::int64_t>& out_offsets,
                   const py::array_t<std::int32_t>& states, const py::array_t<std::int32_t>& words,
                   const py::array_t<std::int32_t>& targets, std::int32_t n_words, int threads) {
    const Documents documents = documents_of(ids, offsets);
    const Target target = target_of(out, out_offsets, ids.size(), offsets, offsets.size());
    const std::int32_t* const state = vector_of(states, "states");
    const std::int32_t* const word = vector_of(words, "words", states.size());
    const std::int32_t* const to = vector_of(targets, "targets", states.size());
    require(n_words >= 0, "n_words must not be negative");
    for (py::ssize_t i = 0; i < states.size(); ++i) {
        require(state[i] >= 0 && state[i] < INT32_MAX && word[i] >= 0 && to[i] != PhraseTable::kNone,
                "states and words must not be negative, states must be below 2^31 - 1, and targets above -2^31");
    }
    threads = threads_of(threads);
    const Released release;
    const PhraseTable table(state, word, to, states.size(), n_words);
    return merge_phrases(documents, table, target.ids, target.offsets, threads);
}

std::int64_t renumbered(const py::array_t<std::int32_t>& ids, const py::array_t<std::int64_t>& offsets,
                        py::array_t<std::int32_t>& out, py::array_t<std::int64_t>& out_offsets,
                        const py::array_t<std::int32_t>& new_ids, int threads) {
    const Documents documents = documents_of(ids, offsets);
    const Target target = target_of(out, out_offsets, ids.size(), offsets, offsets.size());
    const std::int32_t* const numbers = vector_of(new_ids, "new_ids");
    require(new_ids.size() < (std::int64_t{1} << 31), "new_ids must have fewer than 2^31 elements");
    threads = threads_of(threads);
    const auto n_words = static_cast<std::int32_t>(new_ids.size());
    const Released release;
    return renumber(documents, numbers, n_words, target.ids, target.offsets, threads);
}

}  // namespace

void bind_phrases(py::module_& m) {
    m.def("merge_phrases", &merge, py::arg("ids").noconvert(), py::arg("offsets").noconvert(),
          py::arg("out").noconvert(), py::arg("out_offsets").noconvert(), py::kw_only(), py::arg("states").noconvert(),
          py::arg("words").noconvert(), py::arg("targets").noconvert(), py::arg("n_words"), py::arg("threads"));
    m.def("renumber", &renumbered, py::arg("ids").noconvert(), py::arg("offsets").noconvert(),
          py::arg("out").noconvert(), py::arg("out_offsets").noconvert(), py::kw_only(), py::arg("new_ids").noconvert(),
          py::arg("threads"));
}

}  // namespace firth
