// Lists of words as firth.files.pack_words packs them: concatenated UTF-8 bytes, and where each word begins.
#pragma once

#include <string_view>
#include <vector>

#include "bindings/lists.hpp"

namespace firth {

inline std::vector<std::string_view> unpack(const py::array_t<std::uint8_t>& text,
                                            const py::array_t<std::int64_t>& offsets) {
    const auto* bytes = reinterpret_cast<const char*>(vector_of(text, "words"));
    const std::int64_t* offset = vector_of(offsets, "word_offsets");
    const std::int64_t n = offsets.size();
    require(n >= 1, "word_offsets must not be empty");
    check_begins(offset, n - 1, text.size(), "word_offsets");
    std::vector<std::string_view> words;
    for (std::int64_t i = 0; i + 1 < n; ++i) {
        words.emplace_back(bytes + offset[i], static_cast<std::size_t>(offset[i + 1] - offset[i]));
    }
    return words;
}

}  // namespace firth
