#include "text/subwords.hpp"

#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/packed_words.hpp"

namespace firth {
namespace {

Subwords subwords_of(int min_n, int max_n, std::int64_t buckets) {
    require(0 <= min_n && 0 <= max_n, "min_n and max_n must not be negative");
    require(0 <= buckets && buckets < (std::int64_t{1} << 31), "buckets must lie in 0 .. 2^31 - 1");
    require(buckets > 0 || max_n == 0, "buckets must be at least 1 where max_n is not 0");
    return {min_n, max_n, static_cast<std::uint32_t>(buckets)};
}

py::tuple buckets_of(const py::array_t<std::uint8_t>& words, const py::array_t<std::int64_t>& word_offsets, int min_n,
                     int max_n, std::int64_t buckets, int threads) {
    const auto unpacked = unpack(words, word_offsets);
    const Subwords subwords = subwords_of(min_n, max_n, buckets);
    threads = threads_of(threads);
    py::array_t<std::int64_t> offsets(word_offsets.size());
    std::int64_t* const offset = offsets.mutable_data();
    {
        const Released release;
        count_subwords(unpacked, subwords, threads, offset);
    }
    py::array_t<std::uint32_t> found(offset[unpacked.size()]);
    std::uint32_t* const out = found.mutable_data();
    {
        const Released release;
        find_subwords(unpacked, subwords, offset, threads, out);
    }
    return py::make_tuple(offsets, found);
}

std::vector<std::string> split(const std::string& word, int min_n, int max_n) {
    return split_subwords(word, subwords_of(min_n, max_n, 1));
}

py::array_t<std::uint32_t> hashes_of(const py::array_t<std::uint8_t>& words,
                                     const py::array_t<std::int64_t>& word_offsets) {
    const auto unpacked = unpack(words, word_offsets);
    py::array_t<std::uint32_t> hashes(static_cast<py::ssize_t>(unpacked.size()));
    std::transform(unpacked.begin(), unpacked.end(), hashes.mutable_data(), hash_word);
    return hashes;
}

}  // namespace

void bind_subwords(py::module_& m) {
    m.def("subword_buckets", &buckets_of, py::arg("words").noconvert(), py::arg("word_offsets").noconvert(),
          py::kw_only(), py::arg("min_n"), py::arg("max_n"), py::arg("buckets"), py::arg("threads"));
    m.def("split_subwords", &split, py::arg("word"), py::kw_only(), py::arg("min_n"), py::arg("max_n"));
    m.def("hash_words", &hashes_of, py::arg("words").noconvert(), py::arg("word_offsets").noconvert());
}

}  // namespace firth
